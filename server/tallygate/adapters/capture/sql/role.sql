-- What `tallygate capture run` needs, and no more: a group role that its login is put into.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'tallygate_capture') then
        create role tallygate_capture nologin;
    end if;
end
$$;

grant usage on schema tallygate to tallygate_capture;
grant select on tallygate.capture_version, tallygate.capture_rule, tallygate.captures,
    tallygate.capture_delta, tallygate.capture_level, tallygate.capture_unmeasured
to tallygate_capture;
grant select, delete on tallygate.captured to tallygate_capture;
grant insert on tallygate.captured to tallygate_capture;
grant update (attempts, due_at, lease) on tallygate.captured to tallygate_capture;
grant select, insert, delete on tallygate.capture_rejected to tallygate_capture;
grant execute on function tallygate.capture_fold(integer) to tallygate_capture;
