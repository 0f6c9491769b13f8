-- What Stripe is told of usage that came late for a sealed period, and of issued invoices.

alter table tallygate.stripe_intent add column closed_start timestamptz;
comment on column tallygate.stripe_intent.closed_start is
    'The sealed period that the usage came too late for, the epoch for before the first one; null'
    ' for usage of the window itself.';
-- Its name was cut by Postgres.
do $$
declare
    name text;
begin
    select conname into strict name from pg_constraint
    where conrelid = 'tallygate.stripe_intent'::regclass and contype = 'u'
        and cardinality(conkey) > 1;
    execute format('alter table tallygate.stripe_intent drop constraint %I', name);
end
$$;
create unique index stripe_intent_place on tallygate.stripe_intent (
    destination, meter, tenant_id, window_start, window_end, dimensions, seq,
    coalesce(closed_start, '-infinity')
);

create table tallygate.stripe_invoice (
    destination text collate "C" not null,
    number bigint not null,
    items integer not null,
    noted_at timestamptz not null default now(),
    primary key (destination, number)
);
comment on table tallygate.stripe_invoice is
    'Issued invoices whose lines are intended as items of an account, and how many of them are.';
create trigger append_only before update or delete on tallygate.stripe_invoice
    for each row execute function tallygate.refuse_change();
create trigger append_only_truncate before truncate on tallygate.stripe_invoice
    for each statement execute function tallygate.refuse_change();
