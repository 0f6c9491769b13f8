-- The schema's third part, after `schema_rollups.sql`: the double-entry ledger of balances, refunds
-- that lack their event, resets' audit.

create view tallygate.refund_without_event as
select refund.tenant_id, refund.event_id, refund.refund_of, refund.amount, refund.received_at
from tallygate.usage_event as refund
where refund.refund_of <> '' and not exists (
    select from tallygate.event_key as refunded
    where refunded.tenant_id = refund.tenant_id and refunded.event_id = refund.refund_of
);
comment on view tallygate.refund_without_event is
    'Refunds whose event is not in the ledger: for seconds while it is on its way, else a fault.';

create table tallygate.credit_balance (
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    last_seq bigint not null default 0 check (last_seq >= 0),
    published_seq bigint not null default 0 check (published_seq <= last_seq),
    published_shard integer not null default -1,
    published_epoch text not null default '',
    primary key (tenant_id, limit_id)
) with (fillfactor = 70);
comment on table tallygate.credit_balance is
    'How many grants each balance has had, and up to which one, and where, Redis has them. Its row'
    ' is the lock under which a grant gets its number.';
create index credit_balance_unpublished on tallygate.credit_balance (tenant_id, limit_id)
    where published_seq < last_seq or published_epoch = '';

create table tallygate.credit_grant (
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    seq bigint not null check (seq > 0),
    grant_id text collate "C" not null,
    amount bigint not null check (amount between 1 and 9007199254740991),
    priority integer not null,
    starts_at timestamptz not null,
    expires_at timestamptz,
    reason text not null,
    actor text not null,
    created_at timestamptz not null,
    primary key (tenant_id, limit_id, seq),
    unique (tenant_id, limit_id, grant_id),
    check (expires_at > starts_at)
);
comment on table tallygate.credit_grant is 'Every grant of credits, never edited.';
comment on column tallygate.credit_grant.expires_at is 'Null for never.';

create table tallygate.credit_posting (
    id bigint generated always as identity primary key,
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    kind text not null check (kind in ('grant', 'burn', 'expiry')),
    from_account text collate "C" not null
        check (from_account ~ '^(issued|overdraft|used|unfunded|expired|grant:[1-9][0-9]*)$'),
    to_account text collate "C" not null
        check (to_account ~ '^(issued|overdraft|used|unfunded|expired|grant:[1-9][0-9]*)$'),
    amount bigint not null check (amount > 0),
    happened_at timestamptz not null,
    counter_epoch text not null default '',
    source_id text collate "C" not null default '',
    source_lane integer not null default 0,
    entry_id text collate "C" not null default '',
    number integer not null default 0,
    posted_at timestamptz not null default now(),
    check (from_account <> to_account),
    check ((entry_id <> '') = (kind = 'burn'))
);
comment on table tallygate.credit_posting is
    'Double entry by construction: a row takes units from one account of a balance and puts as many'
    ' into another. Never edited.';
create unique index credit_posting_burn_once
    on tallygate.credit_posting (source_id, source_lane, entry_id, number) where kind = 'burn';
create unique index credit_posting_grant_once
    on tallygate.credit_posting (tenant_id, limit_id, to_account) where kind = 'grant';
create index credit_posting_overdraft on tallygate.credit_posting (tenant_id, limit_id)
    where from_account = 'overdraft' or to_account = 'overdraft';

create table tallygate.credit_account (
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    account text collate "C" not null,
    balance numeric not null,
    grant_seq bigint generated always as (
        case when account like 'grant:%' then substring(account from 7)::bigint end
    ) stored,
    primary key (tenant_id, limit_id, account)
) with (fillfactor = 50);
comment on table tallygate.credit_account is
    'What all postings have put into each account less what they took; over a balance the sum is 0.'
    ' Kept by a trigger, for nobody else to write.';
create index credit_account_left on tallygate.credit_account (tenant_id, limit_id, grant_seq)
    where grant_seq is not null and balance <> 0;

create function tallygate.add_up_postings() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    -- In the order of the key, so that two writers wait for each other, not forever.
    insert into tallygate.credit_account as held (tenant_id, limit_id, account, balance)
    select tenant_id, limit_id, account, sum(units) from (
        select tenant_id, limit_id, from_account as account, -amount as units from fresh
        union all
        select tenant_id, limit_id, to_account, amount from fresh
    ) as side
    group by tenant_id, limit_id, account
    order by tenant_id, limit_id, account
    on conflict (tenant_id, limit_id, account) do update
        set balance = held.balance + excluded.balance;
    return null;
end
$$;

create trigger add_up after insert on tallygate.credit_posting
    referencing new table as fresh
    for each statement execute function tallygate.add_up_postings();

create view tallygate.credit_remaining as
select
    credit.tenant_id, credit.limit_id, credit.seq, credit.grant_id, credit.amount,
    coalesce(account.balance, 0) as remaining,
    credit.priority, credit.starts_at, credit.expires_at, credit.created_at,
    credit.reason, credit.actor
from tallygate.credit_grant as credit
left join tallygate.credit_account as account
    on account.tenant_id = credit.tenant_id
    and account.limit_id = credit.limit_id
    and account.account = 'grant:' || credit.seq;
comment on view tallygate.credit_remaining is 'Every grant with what is left of it.';

create table tallygate.balance_low (
    tenant_id text collate "C" not null,
    limit_id text collate "C" not null,
    threshold bigint not null,
    crossed_at timestamptz not null,
    meter text not null,
    remaining bigint not null,
    primary key (tenant_id, limit_id, threshold, crossed_at)
);
comment on table tallygate.balance_low is
    'Each time a balance fell to one of its low marks, once, however often the stream says so.';

create table tallygate.limit_reset (
    tenant_id text collate "C" not null,
    operation_id text collate "C" not null,
    limit_id text collate "C" not null,
    scope text not null,
    used_before bigint not null,
    used_after bigint not null,
    reason text not null check (reason <> ''),
    actor text not null check (actor <> ''),
    reset_at timestamptz not null,
    written_at timestamptz not null default now(),
    primary key (tenant_id, operation_id)
);
comment on table tallygate.limit_reset is
    'Who set which counter back, when and why. Never edited.';
comment on column tallygate.limit_reset.scope is
    'KEY=VALUE for a counter of one value of a dimension, empty for the tenant''s own.';

do $$
declare
    name text;
begin
    foreach name in array array['credit_grant', 'credit_posting', 'limit_reset'] loop
        execute format(
            'create trigger append_only before update or delete on tallygate.%I'
            ' for each row execute function tallygate.refuse_change()', name
        );
        execute format(
            'create trigger append_only_truncate before truncate on tallygate.%I'
            ' for each statement execute function tallygate.refuse_change()', name
        );
    end loop;
end
$$;
