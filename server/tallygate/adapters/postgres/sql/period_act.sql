-- Write who closed a period before its time or opened it again.
insert into tallygate.period_action (
    tenant_id, start_at, revision, action, actor, reason, done_at
)
values ($1, tallygate.instant($2::bigint), $3, $4, $5, $6, tallygate.instant($7::bigint))
