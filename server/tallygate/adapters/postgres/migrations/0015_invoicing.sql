-- Which late usage belongs where, and which closed periods are to be invoiced. Late events are
-- few: their index takes moments, while ingesters that note one wait.

create index late_event_time on tallygate.late_event (tenant_id, meter, event_time);

create view tallygate.late_usage as
select late.tenant_id, late.event_id, late.meter, late.amount, late.event_time, late.closed_start,
    late.allocated_start, late.allocated_revision,
    late.closed_start is not distinct from late.allocated_start
        and late.allocated_revision > coalesce(period.revision, 0) as awaited
from tallygate.late_event as late
left join tallygate.billing_period as period
    on period.tenant_id = late.tenant_id and period.start_at = late.allocated_start;
comment on view tallygate.late_usage is
    'Late events, and where each is billed; awaited, it is of a revision that has yet to be made.';

create table tallygate.invoice_due (
    tenant_id text collate "C" not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    revision integer not null,
    next_at timestamptz not null,
    attempts integer not null default 0,
    held text not null default '',
    detail text not null default '',
    held_at timestamptz,
    token uuid,
    primary key (tenant_id, start_at)
) with (fillfactor = 80);
comment on table tallygate.invoice_due is
    'Closed periods that are to be invoiced, and why they are not. Gone once they are.';
create index invoice_due_next on tallygate.invoice_due (next_at, tenant_id);

create function tallygate.note_invoice_due() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog
    as $$
begin
    insert into tallygate.invoice_due as due (tenant_id, start_at, end_at, revision, next_at)
    select new.tenant_id, new.start_at, new.end_at, new.revision, new.closed_at
    union all
    -- What late usage of it came to may be another now.
    select period.tenant_id, period.start_at, period.end_at, period.revision, new.closed_at
    from tallygate.billing_period as period
    where new.revision > 1 and period.tenant_id = new.tenant_id and period.state = 'closed'
        and period.start_at in (
            select late.allocated_start from tallygate.late_event as late
            where late.tenant_id = new.tenant_id and late.closed_start = new.start_at
                and late.allocated_start <> new.start_at
        )
    on conflict (tenant_id, start_at) do update set
        revision = excluded.revision, next_at = excluded.next_at, token = null;
    return null;
end
$$;
comment on function tallygate.note_invoice_due is
    'Have a period that was closed be invoiced, and those again that bill late usage of it.';
create trigger invoice_due after insert on tallygate.period_revision
    for each row execute function tallygate.note_invoice_due();

-- A month whose events an invoice that is held will be made of is as one of an open period.
create or replace function tallygate.unclosed_periods(from_time timestamptz, to_time timestamptz)
    returns bigint
    language sql stable
    set search_path = pg_catalog
    as $$
    select (
        select count(*) from tallygate.billing_period
        where start_at < to_time and end_at > from_time and state <> 'closed'
    ) + (
        select count(*) from tallygate.invoice_due
        where start_at < to_time and end_at > from_time and held <> ''
    )
$$;
comment on function tallygate.unclosed_periods is
    'Count the billing periods of any tenant that overlap a time and are not closed, or whose'
    ' invoice is held.';
