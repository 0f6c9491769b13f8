-- Take the lease or keep it for so many milliseconds, unless another holds it still.
insert into tallygate.period_lease as lease (holder, until)
values ($1, now() + $2 * interval '1 millisecond')
on conflict (one) do update set holder = excluded.holder, until = excluded.until
where lease.holder = excluded.holder or lease.until < now()
returning true
