-- Write one destination as the catalog has it.
insert into tallygate.destination as destination
    (name, kind, url, types, secret_env, secret_file)
values ($1, $2, $3, $4, $5, $6)
on conflict (name) do update set
    kind = excluded.kind, url = excluded.url, types = excluded.types, active = true,
    secret_env = excluded.secret_env, secret_file = excluded.secret_file
