"""What is promised of servers that fail, of load, and of processes."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

SERVICE: Final[tuple[Promise, ...]] = (
    Promise(
        "Redis away is decided by the limits",
        "A Redis that is gone, hangs or is badly connected costs callers one wait, then none; each "
        "limit's `on_outage` decides, and everything granted so is counted afterwards.",
        "`refuse`: 0. `local_budget(N)`: N per sidecar, outage and counter. `allow`: no bound.",
        (10, 14),
        (
            *_of(
                "faults/test_outage",
                "refuse_grants_nothing_and_charges_nothing",
                "allow_grants_all_and_counts_it",
                "a_local_budget_is_the_bound_of_each_sidecar",
                "no_call_waits_while_the_circuit_is_open",
                "a_flapping_redis_loses_and_doubles_nothing",
            ),
            *_of(
                "faults/test_bad_network",
                "latency_changes_no_answer",
                "crumbs_are_put_together",
                "a_reply_that_is_cut_off_is_charged_once",
                "a_black_hole_costs_one_wait_and_then_none",
                "a_callers_deadline_is_kept",
                "a_late_request_is_not_charged",
                "jitter_and_crumbs_at_once_change_no_answer",
                "lateness_beyond_patience_is_an_outage",
                "a_charge_that_is_not_heard_of_is_found_by_the_retry",
            ),
            *_of("faults/test_stall", "what_was_given_up_is_never_charged"),
            *_of("flow/test_breaker", "a_hanging_store_costs_one_wait"),
        ),
    ),
    Promise(
        "A Redis that refuses changes nothing",
        "Each refusal of Redis has one typed outcome; nothing is half written; a foreign value is "
        "the fault of its key alone. Every key of a call lies in one cluster slot.",
        "The call that was refused.",
        (12, 13),
        (
            *_of(
                "faults/test_redis_store",
                "out_of_memory_is_said_and_leaves_nothing_half_done",
                "a_replica_refuses_and_says_so",
                "a_broken_account_harms_only_its_tenant",
                "a_broken_stream_changes_nothing",
                "cluster_mode_runs_the_script",
            ),
            *_of(
                "faults/test_redis_refusals",
                "a_refusal_is_one_typed_outcome",
                "a_server_busy_with_a_script_is_unavailable",
                "a_server_that_is_loading_is_unavailable",
            ),
            *_of("property/test_admit_model", "they_do_not_differ_in_a_cluster"),
            *_of("ops/test_posture", "each_check_follows_its_setting"),
        ),
    ),
    Promise(
        "A Redis Cluster may move slots and lose servers",
        "No error reaches a caller that a retry does not cure while slots move or a replica takes "
        "over; a server that is away fails its own shards alone; nothing is counted twice or lost.",
        "Shards whose slots are being moved for longer than 150 ms are in an outage meanwhile.",
        (12,),
        (
            *_of(
                "faults/test_cluster",
                "slots_move_under_load",
                "a_replica_takes_over_under_load",
                "a_server_is_killed_and_replaced",
                "a_server_without_replica_fails_its_own_shards",
                "a_slot_that_is_half_moved",
            ),
            *_of(
                "e2e/test_cluster",
                "slots_move_under_processes",
                "a_server_is_emptied_under_processes",
            ),
        ),
    ),
    Promise(
        "A billing period is closed whole, once, and stays",
        "An event is in the frozen totals of its period or late, never both and never neither. "
        "What may be missing holds the period. A closed revision never changes, and whoever asks "
        "computes its hash anew from the ledger.",
        "While up to twenty periods are sealed, events are stored some milliseconds later.",
        (28,),
        (
            *_of(
                "periods/test_race",
                "each_event_is_billed_once",
                "sealing_waits_for_what_is_being_stored",
                "a_planted_error_holds_a_period",
                "a_changed_event_is_found",
            ),
            *_of(
                "faults/test_period_late",
                "late_events_after_the_close",
                "what_lies_in_a_stream_holds_a_period",
                "a_number_that_is_nowhere_holds_a_period",
            ),
        ),
    ),
    Promise(
        "Postgres may be away, fail over, or be restored",
        "Decisions go on; streams hold what is accepted; the ledger takes it in order afterwards. "
        "Unknown commits are repeated without effect. What can never be stored is put aside alone.",
        "Redis' memory holds the streams meanwhile.",
        (17, 18, 19, 20, 21, 22, 23, 24, 28),
        (
            *_of("faults/test_postgres_outage", "long_outage_under_load"),
            *_of("flow/test_stream_room", "a_full_shard_takes_nothing_new"),
            *_of("e2e/test_stream_room", "full_streams_push_back"),
            *_of(
                "faults/test_postgres_sessions",
                "killed_while_its_commit_is_confirmed",
                "killed_before_its_commit_is_written",
                "deadlock_is_tried_again",
                "serialization_failures_are_tried_again",
                "read_only_primary_is_told_and_left",
                "exhausted_pool_is_told",
                "cancelled_callers_leak_no_connection",
            ),
            *_of(
                "faults/test_postgres_tail",
                "tail_beside_slow_commits",
                "idle_write_in_another_database_holds_readers_not_deliveries",
            ),
            *_of(
                "faults/test_postgres_failover",
                "failover_under_load_loses_nothing",
                "what_an_unconfirmed_failover_loses_is_seen",
            ),
            *_of("faults/test_postgres_pooled", "writers_share_sessions"),
            *_of(
                "faults/test_postgres_values",
                "edge_refuses_by_field_or_it_persists",
                "poison_is_isolated",
            ),
            *_of(
                "faults/test_postgres_migrations",
                "migrator_killed_in_the_middle",
                "drift_is_refused_by_the_command",
            ),
            *_of("sql/test_migrations", "two_runs_at_once_share_the_work"),
            *_of("faults/test_postgres_restore", "restore_into_a_new_cluster"),
            *_of(
                "faults/test_postgres_late",
                "late_event_changes_its_own_buckets_alone",
                "replay_of_a_past_day_changes_nothing",
            ),
        ),
    ),
    Promise(
        "The books can be checked while they are kept",
        "`tallygate verify` recomputes counters, rollups, partitions and deliveries of a live "
        "system from the ledger; one unit planted wrongly in any of them is found.",
        "What is in flight is allowed for, and nothing else.",
        (16, 38),
        (
            *_of(
                "faults/test_verify",
                "true_books_have_no_difference",
                "a_unit_in_a_rollup_is_found",
                "a_unit_in_a_partition_is_found",
                "a_unit_in_a_delivery_is_found",
            ),
            *_of(
                "faults/test_verify_counters",
                "a_unit_in_a_counter_is_found",
                "what_is_in_flight_is_no_difference",
                "under_load_nothing_differs",
            ),
            *_of(
                "faults/test_completeness",
                "under_load_nothing_is_missing",
                "a_deleted_entry_is_unaccounted",
                "a_lost_epoch_waits_for_journals_and_then_is_lost",
            ),
            *_of("e2e/test_explain", "from_the_stream_to_the_destination"),
        ),
    ),
    Promise(
        "Destinations are told once",
        "Each message has one id for all attempts; a destination that fails or is slow is tried "
        "again, later and later, and no other destination waits for it.",
        "A message may arrive again, under the same id.",
        (2, 3, 25, 26, 27),
        (
            *_of(
                "flow/test_relay",
                "wait_doubles_with_jitter_up_to_its_bound",
                "wait_asked_for_is_honoured",
                "refusal_for_good_parks_at_once",
                "late_completion_is_refused_after_take_over",
                "message_that_kills_relays_is_parked_unsent",
            ),
            *_of("contracts/test_outbox", "claim_takes_one_destination_in_order"),
        ),
    ),
    Promise(
        "Overload is refused early, and fairly",
        "Beyond its bounds a sidecar refuses with a pushback that grows; tenants take turns; its "
        "health stays as it is; bad clients are cut off and others are served.",
        "Queues, bytes and connections are bounded by settings.",
        (29, 30, 35, 36, 37, 44),
        (
            *_of(
                "faults/test_overload",
                "ten_times_too_much",
                "callers_who_mind_the_pushback_hardly_retry",
                "one_hot_tenant_leaves_others_alone",
                "a_herd_is_served_in_turns",
            ),
            *_of(
                "faults/test_herd",
                "a_herd_comes_back_apart",
                "whoever_comes_when_it_was_told_meets_the_new_window",
                "others_hear_nothing_of_a_herd",
            ),
            *_of("faults/test_many_connections", "idle_connections_cost_a_bounded_memory"),
            *_of(
                "faults/test_edge",
                "one_call_too_many_is_refused_unread",
                "too_many_bytes_are_refused",
                "what_is_out_of_time_is_not_decoded",
                "calls_that_never_say_what_they_want_end",
                "a_flood_of_pings_is_cut_off",
                "idle_connections_are_closed",
                "calls_reset_at_once_leave_nothing_behind",
                "connections_grow_old_without_an_error",
            ),
            *_of(
                "flow/test_fair",
                "busy_tenants_share_alike_whatever_the_size_of_their_lists",
                "a_full_queue_takes_from_whoever_has_most",
            ),
            *_of(
                "faults/test_hostile",
                "hostile_text_is_refused_or_stored_as_it_is",
                "bytes_without_sense_get_a_mapped_status",
                "seventeen_dimensions_are_one_too_many",
            ),
            *_of(
                "api/test_errors",
                "bytes_that_do_not_decode_are_malformed",
                "fields_that_are_not_known_are_passed_over",
                "what_is_too_large_is_refused_by_the_transport",
                "a_call_without_a_deadline_gets_one",
            ),
        ),
    ),
    Promise(
        "Whoever runs it is told, and told what to do",
        "Every alert is silent while all is well, fires with its labels and text, resolves, and "
        "leads to a runbook; every panel and every rule asks for metrics and labels that exist; "
        "what processes show is well-formed.",
        "`make watch-check` asks every panel of a real Prometheus over a real run.",
        (47,),
        (
            *_of(
                "watch/test_rules",
                "every_alert_fires_and_resolves",
                "rules_ask_for_what_exists",
                "every_alert_has_its_page",
            ),
            *_of(
                "watch/test_dashboards",
                "panels_ask_for_what_exists",
                "promtool_reads_what_is_asked",
            ),
            *_of("watch/test_exposition", "what_is_shown_is_well_formed"),
        ),
    ),
    Promise(
        "Processes come and go without a trace",
        "On SIGTERM calls in flight are answered; SIGKILL loses nothing that was answered. Each "
        "socket has one owner. Start and stop leave nothing behind. Two versions decide alike.",
        "`TALLYGATE_DRAIN_GRACE_MS` for the drain.",
        (7, 8, 9, 38),
        (
            *_of(
                "e2e/test_crashes",
                "sigterm_answers_calls_in_flight",
                "sigterm_under_load_loses_nothing",
                "sigterm_refuses_late_calls_as_unavailable",
                "sigkill_right_after_sigterm_loses_nothing",
            ),
            *_of("e2e/test_away", "all_roles_wait_for_their_servers"),
            *_of(
                "faults/test_lifecycle",
                "starting_and_stopping_leaves_nothing",
                "a_second_server_cannot_have_the_path",
                "what_a_killed_owner_left_is_taken_over",
                "a_start_that_fails_leaves_nothing",
            ),
            *_of(
                "faults/test_upgrade",
                "two_texts_of_the_script_decide_alike",
                "messages_of_a_later_version_are_understood",
                "entries_of_a_later_version_are_read",
            ),
            *_of("sql/test_older_code", "what_older_code_names_stays"),
        ),
    ),
    Promise(
        "No secret is told",
        "What is unexpected reaches a caller as `INTERNAL` with a reference; no reply, message or "
        "log holds a secret.",
        "None.",
        (43,),
        (
            *_of("chaos/test_soak", "nothing_is_lost_or_doubled_under_any_fault"),
            *_of("api/test_errors", "an_unexpected_error_tells_a_reference_and_nothing_else"),
            *_of("e2e/test_secrets", "no_secret_is_told_on_a_bad_day"),
            *_of("ops/test_log", "tracebacks_are_redacted", "secrets_within_text_are_hidden"),
        ),
    ),
    Promise(
        "A pod has one sidecar or a reason",
        "Asked once, twice or by another webhook's leave, a pod that asks has exactly one sidecar; "
        "one that cannot is refused or told, one that does not ask is not touched, and who went "
        "without while the injector was away is listed.",
        "Pods that start while the injector is away, until they are created anew.",
        (48,),
        (
            *_of("injector/test_patch", "a_pod_is_injected_once", "a_difference_leads_there"),
            *_of(
                "injector/test_injection",
                "nothing_is_injected_unasked",
                "no_pod_gets_a_second_sidecar",
                "containers_that_came_later_reach_the_sidecar_too",
                "a_job_completes",
                "pods_of_the_nodes_network_are_refused",
                "pods_of_the_nodes_network_take_no_port_of_it",
                "pods_that_cannot_have_one_are_refused",
            ),
            *_of(
                "injector/test_admission",
                "a_pod_comes_back_with_its_sidecar",
                "what_cannot_be_judged_is_no_answer",
                "a_renewed_certificate_drops_no_connection",
                "an_injector_makes_its_own_certificate",
            ),
            *_of("injector/test_missed", "only_pods_without_what_they_ask_count"),
            *_of(
                "injector/test_certificate",
                "nothing_is_served_that_is_not_trusted",
                "an_authority_is_replaced_without_a_gap",
            ),
        ),
    ),
)
