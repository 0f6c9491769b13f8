-- Dated rates of exchange, and what was invoiced. New tables: nothing waits for this.

create table tallygate.exchange_rate (
    number bigint primary key generated always as identity,
    base text collate "C" not null check (base ~ '^[A-Z]{3}$'),
    quote text collate "C" not null check (quote ~ '^[A-Z]{3}$'),
    valid_from timestamptz not null,
    rate numeric not null check (rate > 0 and rate < 1000000000000 and scale(rate) <= 12),
    source text not null check (source <> ''),
    created_at timestamptz not null default now(),
    check (base <> quote)
);
comment on table tallygate.exchange_rate is
    'What one unit of base is worth in quote from an instant on. Never edited: a rate of the same'
    ' instant that is written later stands in for it.';
create index exchange_rate_at on tallygate.exchange_rate (base, quote, valid_from, number);

create table tallygate.invoice (
    tenant_id text collate "C" not null,
    period_start timestamptz not null,
    revision integer not null check (revision > 0),
    number bigint not null generated always as identity,
    period_end timestamptz not null,
    currency text not null,
    catalogs bigint[] not null,
    lines jsonb not null,
    subtotal numeric not null,
    discounts numeric not null,
    credits numeric not null,
    total numeric not null,
    document bytea not null,
    document_sha256 bytea not null generated always as (sha256(document)) stored,
    reason text not null,
    actor text not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, period_start, revision),
    check (period_end > period_start),
    check (total = subtotal + discounts + credits)
);
comment on table tallygate.invoice is
    'What was invoiced, as it was then. Never edited: what changed since is another revision.';
comment on column tallygate.invoice.document is
    'All of it as JSON, whose bytes the hash is of; lines and sums beside it are for queries.';
create unique index invoice_number on tallygate.invoice (number);

create function tallygate.value_of(event tallygate.usage_event, name text) returns text
    language sql immutable parallel safe
    as $$
select coalesce(
    event.dimensions ->> name,
    case name
        when 'subject_id' then event.subject_id
        when 'resource_id' then event.resource_id
        when 'session_id' then event.session_id
        when 'region' then event.region
        when 'sku' then event.sku
        when 'correlation_id' then event.correlation_id
        when 'sdk' then event.sdk
    end,
    ''
)
$$;
comment on function tallygate.value_of is
    'An event''s value of a dimension, or else of a field of its context, or nothing: as limits and'
    ' prices have it.';

do $$
declare
    name text;
begin
    foreach name in array array['exchange_rate', 'invoice'] loop
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
