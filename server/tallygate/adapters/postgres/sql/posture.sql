-- Reads how the server is set up, and what this login may do, for `tallygate doctor`.
select
    current_user::text as login,
    (select rolsuper from pg_roles where rolname = current_user) as superuser,
    array(
        select name
        from unnest(array['ingest', 'relay', 'control', 'read', 'operator']) as name
        where to_regrole('tallygate_' || name) is not null
          and pg_has_role(to_regrole('tallygate_' || name), 'member')
    ) as roles,
    has_schema_privilege('tallygate', 'usage') as may_read,
    has_table_privilege('tallygate.usage_event', 'update, delete, truncate') as may_edit,
    extract(epoch from clock_timestamp())::float8 as now_s,
    not pg_is_in_recovery() as is_primary,
    current_setting('default_transaction_read_only') = 'off' as writable,
    current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on' as durable,
    current_setting('synchronous_commit') <> 'off' as commits,
    current_setting('synchronous_standby_names') <> '' as confirmed,
    (
        select max(version) from tallygate.catalog_version where effective_at <= clock_timestamp()
    ) as catalog
