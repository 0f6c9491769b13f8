-- Note balances used before any grant: their overdraft is found when Redis is lost.
insert into tallygate.credit_balance (tenant_id, limit_id)
select * from unnest($1::text[], $2::text[]) as balance (tenant_id, limit_id)
order by tenant_id, limit_id
on conflict do nothing
