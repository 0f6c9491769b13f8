-- Group roles, one per process, each with no more than it needs. Run by the schema's owner, who
-- must be able to create roles; safe to run again. Grant them to login roles of your own:
--     grant tallygate_ingest to my_ingest_user;
-- No role may update, delete or truncate events: the ledger is append-only by privilege as well as
-- by trigger. Rights on partitioned tables are those on the parent; partitions have none.

do $$
declare
    name text;
begin
    foreach name in array array[
        'tallygate_ingest', 'tallygate_relay', 'tallygate_control', 'tallygate_read',
        'tallygate_operator'
    ] loop
        begin
            execute format('create role %I nologin', name);
        exception
            when duplicate_object or unique_violation then
                null;
        end;
        execute format('grant usage on schema tallygate to %I', name);
    end loop;
end
$$;

revoke execute on function tallygate.ensure_partitions from public;

grant select, insert on
    tallygate.event_key, tallygate.usage_event, tallygate.dead_letter,
    tallygate.threshold_crossing, tallygate.outbox, tallygate.delivery,
    tallygate.credit_posting, tallygate.credit_balance, tallygate.balance_low
    to tallygate_ingest;
grant select, insert, update on
    tallygate.usage_minute, tallygate.usage_hour, tallygate.usage_day, tallygate.source_progress
    to tallygate_ingest;
grant select, insert, update on
    tallygate.counter_epoch, tallygate.counter_correction, tallygate.rebuild_lease
    to tallygate_ingest;
-- What counters are made of, beside events: plans, families, and which counters were set back.
grant select on
    tallygate.destination, tallygate.catalog_version, tallygate.tenant, tallygate.limit_reset
    to tallygate_ingest;
grant execute on function tallygate.ensure_partitions to tallygate_ingest;
-- Where calls were in traces is no part of the ledger: it goes with the traces, row by row.
grant select, insert, update, delete on tallygate.event_trace to tallygate_ingest;
-- Rollups of groups: the ingester adds to them, and control makes them anew.
grant select on tallygate.rollup_shape to tallygate_ingest;
grant select, insert on tallygate.rollup_group to tallygate_ingest;
grant select, insert, update on
    tallygate.group_usage, tallygate.group_part, tallygate.group_level
    to tallygate_ingest;
-- Which events come too late for their period, and where they belong instead.
grant select on tallygate.billing_period, tallygate.period_frontier to tallygate_ingest;
grant select, insert on tallygate.late_event, tallygate.period_pending to tallygate_ingest;

grant select on tallygate.outbox, tallygate.destination to tallygate_relay;
grant select, update on tallygate.delivery to tallygate_relay;
-- Stripe is planned from rollups, or from events where dimensions count, for tenants that have a
-- customer there; what became of each intent is the relay's to note.
grant select on
    tallygate.usage_minute, tallygate.usage_hour, tallygate.usage_day, tallygate.usage_event,
    tallygate.catalog_version, tallygate.tenant, tallygate.billing_period, tallygate.late_event,
    tallygate.invoice
    to tallygate_relay;
grant select, insert on
    tallygate.stripe_intent, tallygate.stripe_report, tallygate.stripe_invoice
    to tallygate_relay;
grant select, insert, update on tallygate.stripe_send, tallygate.stripe_lane to tallygate_relay;

grant select on all tables in schema tallygate to tallygate_control, tallygate_read;
grant insert on
    tallygate.catalog_version, tallygate.tenant_history, tallygate.tenant, tallygate.destination
    to tallygate_control;
grant update on tallygate.tenant, tallygate.destination to tallygate_control;
grant delete on tallygate.destination to tallygate_control;
-- The accounts are kept by the postings' trigger, which runs as its owner.
grant insert on
    tallygate.credit_balance, tallygate.credit_grant, tallygate.credit_posting,
    tallygate.limit_reset, tallygate.outbox, tallygate.delivery
    to tallygate_control;
grant update on tallygate.credit_balance to tallygate_control;
grant insert, update on tallygate.rollup_shape to tallygate_control;
grant insert, delete on tallygate.rollup_group to tallygate_control;
grant insert, update, delete on
    tallygate.group_usage, tallygate.group_part, tallygate.group_level
    to tallygate_control;
grant insert on tallygate.exchange_rate, tallygate.invoice to tallygate_control;

-- Whoever may ask may append to the audit log, and nobody may write its rows himself.
revoke execute on function tallygate.append_audit, tallygate.drop_month from public;
grant execute on function tallygate.append_audit
    to tallygate_control, tallygate_read, tallygate_operator;

-- Who exports, sends again, makes rollups anew, holds and drops, by the commands.
grant select on all tables in schema tallygate to tallygate_operator;
grant insert on
    tallygate.legal_hold, tallygate.legal_hold_release, tallygate.month_archive,
    tallygate.month_archive_usage, tallygate.message_replay
    to tallygate_operator;
grant insert, update, delete on
    tallygate.usage_minute, tallygate.usage_hour, tallygate.usage_day
    to tallygate_operator;
grant insert, update on tallygate.delivery, tallygate.outbox_pruned to tallygate_operator;
grant delete on tallygate.outbox, tallygate.delivery to tallygate_operator;
grant execute on function tallygate.drop_month to tallygate_operator;
-- Repairs of a reconciliation: what a counter is due, and what Stripe is to be told.
grant insert on
    tallygate.counter_correction, tallygate.stripe_intent, tallygate.stripe_send,
    tallygate.stripe_lane
    to tallygate_operator;
grant update on tallygate.stripe_send, tallygate.stripe_lane to tallygate_operator;
grant insert, update, delete on
    tallygate.group_usage, tallygate.group_part, tallygate.group_level
    to tallygate_operator;
grant insert on tallygate.rollup_group to tallygate_operator;
grant update on tallygate.rollup_shape to tallygate_operator;

-- Series are learned and forgotten; what was found and told is only ever added.
grant insert, update, delete on
    tallygate.anomaly_series, tallygate.anomaly_season to tallygate_control;
grant insert on
    tallygate.usage_anomaly, tallygate.reconciliation, tallygate.reconcile_drift,
    tallygate.reconcile_invoicing
    to tallygate_control;
grant insert, update on tallygate.reconcile_run to tallygate_control;
grant insert, update on
    tallygate.billing_period, tallygate.period_frontier, tallygate.period_lease
    to tallygate_control;
grant insert on
    tallygate.period_total, tallygate.period_adjustment, tallygate.period_revision,
    tallygate.period_action
    to tallygate_control;
grant delete on tallygate.period_pending to tallygate_control;
-- By which rules periods were billed, and what is to be looked at again once the next one is.
grant insert on tallygate.period_rule, tallygate.period_review to tallygate_control;
grant insert, delete on tallygate.period_touched to tallygate_control;
-- What is to be invoiced is noted by the trigger of what closes periods, which runs as its owner.
grant update, delete on tallygate.invoice_due to tallygate_control;
