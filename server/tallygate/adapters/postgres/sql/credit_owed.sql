-- Read how much overdraft is in use that the counters of one epoch do not know of.
select coalesce(sum(case when from_account = 'overdraft' then amount else -amount end), 0)::numeric
from tallygate.credit_posting
where tenant_id = $1 and limit_id = $2 and counter_epoch <> $3
    and (from_account = 'overdraft' or to_account = 'overdraft')
