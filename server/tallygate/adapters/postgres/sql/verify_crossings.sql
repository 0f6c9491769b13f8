-- Find crossings, low balances and grants told by more or fewer messages than one, where wanted.
with row_of as (
    select
        'limit.threshold_crossed' as type, tenant_id, limit_id,
        scope || ' ' || ratio_ppm || ' ' || tallygate.microseconds(window_start) as place,
        crossed_at as at
    from tallygate.threshold_crossing
    union all
    select
        'balance.low', tenant_id, limit_id,
        threshold || ' ' || tallygate.microseconds(crossed_at), crossed_at
    from tallygate.balance_low
    union all
    select 'credit.granted', tenant_id, limit_id, grant_id, created_at
    from tallygate.credit_grant
),
told as (
    select
        message.type, part ->> 'tenant_id' as tenant_id, part ->> 'limit_id' as limit_id,
        case message.type
            when 'limit.threshold_crossed' then
                coalesce(part ->> 'scope', '')
                || ' ' || ((part ->> 'ratio')::numeric * 1000000)::bigint
                || ' ' || tallygate.microseconds((part ->> 'window_start')::timestamptz)
            when 'balance.low' then
                (part ->> 'threshold')
                || ' ' || tallygate.microseconds((body ->> 'timestamp')::timestamptz)
            else part ->> 'grant_id'
        end as place,
        count(*) as messages
    from (
        select type, convert_from(payload, 'UTF8')::jsonb as body from tallygate.outbox
        where type in ('limit.threshold_crossed', 'balance.low', 'credit.granted')
    ) as message (type, body), lateral (select body -> 'data') as data (part)
    group by 1, 2, 3, 4
)
select
    coalesce(told.type, row_of.type) as type,
    coalesce(told.tenant_id, row_of.tenant_id) as tenant_id,
    coalesce(told.limit_id, row_of.limit_id) as limit_id,
    coalesce(told.place, row_of.place) as place,
    coalesce(told.messages, 0) as messages,
    case when row_of.at is null then 0 else 1 end as expected
from told
full join row_of
    on row_of.type = told.type and row_of.tenant_id = told.tenant_id
    and row_of.limit_id = told.limit_id and row_of.place = told.place
where
    ($1::text is null or coalesce(told.tenant_id, row_of.tenant_id) = $1)
    and case
        when told.type is null then exists (
            select from unnest($2::text[], $3::bigint[], $4::bigint[])
                as wanted (type, from_us, to_us)
            where wanted.type = row_of.type
                and row_of.at >= tallygate.instant(from_us)
                and row_of.at < tallygate.instant(to_us)
        ) and not exists (
            select from tallygate.outbox_pruned where row_of.at < outbox_pruned.pruned_before
        )
        else row_of.at is null or told.messages <> 1
    end
