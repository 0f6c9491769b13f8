"""What is promised, how far, and which tests show it: the source of `docs/guarantees.md`.

Owns the mapping from faults to tests. Refuses to know whether they pass.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise. `rows` are the faults it is about; `commands` are runs beside pytest's."""

    title: str
    says: str
    bound: str
    rows: tuple[int, ...]
    tests: tuple[str, ...]
    commands: tuple[tuple[str, str], ...] = ()


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{file}.py::test_{name}" for name in names)


PROMISES: Final[tuple[Promise, ...]] = (
    Promise(
        "An answer is kept",
        "A call that was answered is decided once; a retry by its operation id gets that answer, "
        "also after a crash of the sidecar at any step.",
        "Redis remembers operations for `TALLYGATE_OPERATION_TTL_S`; what comes again later is "
        "found by the ledger, and its charge taken back.",
        (1, 15, 31),
        (
            *_of("sim/test_every_step", "a_death_at_any_step_changes_nothing"),
            *_of("e2e/test_crashes", "killed_sidecar_under_load"),
            *_of(
                "faults/test_cancellation",
                "cancelled_calls_are_charged_at_most_once",
                "what_nobody_waits_for_is_not_sent",
            ),
            *_of("api/test_races", "retries_of_one_operation_charge_once"),
            *_of("api/test_errors", "a_reused_operation_id_is_refused"),
            *_of("contracts/test_quota_store", "a_call_is_forgotten_after_its_memory"),
            *_of("faults/test_last_unit", "one_operation_at_fifty_sidecars_is_charged_once"),
        ),
    ),
    Promise(
        "Nothing accepted is lost, nothing is stored twice",
        "Each accepted event is in the ledger exactly once, whatever is killed, paused or cut off.",
        "Without exception while Redis or the sidecar's disk keeps what it has synced; with both "
        "lost at once, events that were answered as `REDIS` alone.",
        (1, 2, 3, 10, 14, 16, 18, 25),
        (
            *_of("sim/test_runs", "everything_holds_under_faults", "a_planted_bug_is_found"),
            *_of("chaos/test_soak", "nothing_is_lost_or_doubled_under_any_fault"),
            *_of("chaos/test_soak", "nothing_is_lost_or_doubled_for_long"),
            *_of("chaos/test_million", "ledger_rollups_counters_and_messages_are_what_was_made"),
            *_of("e2e/test_crashes", "kill_between_commit_and_acknowledgement"),
            *_of(
                "faults/test_ingest",
                "ingester_killed_between_commit_and_acknowledgement",
                "redelivery_stores_nothing_twice",
                "poison_among_good_events",
            ),
            *_of(
                "flow/test_relay_process", "kill_between_send_and_mark_redelivers_under_the_same_id"
            ),
            *_of(
                "faults/test_postgres_pauses",
                "relay_stopped_beyond_its_lease",
                "ingester_stopped_beyond_its_claim",
            ),
            *_of(
                "contracts/test_stream",
                "lost_group_is_read_from_the_start",
                "takes_over_what_another_left",
                "unread_entries_are_never_trimmed",
                "unreadable_entry_is_given_out_as_rejected",
            ),
        ),
        (
            ("`make million`", "below"),
            ("`make soak`", "[soak](soak.md)"),
        ),
    ),
    Promise(
        "What is synced survives",
        "An answer that says `JOURNAL` survives the loss of power. What is damaged in a journal is "
        "counted and put aside; what is whole is read. A full or failing disk is told, not hidden.",
        "Records that were not synced, and those that the damage has met.",
        (4, 5, 6),
        (
            *_of(
                "journal/test_damage",
                "power_is_lost_at_any_moment",
                "a_cut_end_loses_the_last_records_only",
                "a_flipped_bit_loses_its_record_only",
                "garbage_between_records_is_passed_over",
                "any_damage_leaves_what_is_whole",
                "what_cannot_be_read_is_put_aside_and_counted",
                "a_file_of_nothing_is_no_harm",
            ),
            *_of(
                "journal/test_disk",
                "a_failed_sync_is_never_asked_again",
                "a_full_disk_is_told_and_got_over",
                "a_journal_keeps_to_its_bound",
                "a_real_file_that_may_not_grow",
                "two_processes_never_share_a_journal",
            ),
            *_of("e2e/test_outage", "the_next_process_goes_on"),
        ),
    ),
    Promise(
        "Lost counters come back to the unit",
        "When Redis has lost its data, counters are rebuilt from ledger and journals and equal the "
        "ledger and what is in flight; until then hard limits follow their `on_outage` rules.",
        "An emptied Redis lets no limit be passed. A replica that had not heard the last writes "
        "lets limits be passed by what it had not heard, until that is found out.",
        (10, 11),
        (
            *_of("chaos/test_emptied", "counters_come_back_and_no_limit_is_passed"),
            *_of("chaos/test_emptied", "counters_of_many_tenants_come_back_twice"),
            *_of(
                "flow/test_rebuild",
                "lost_counters_are_made_anew",
                "it_may_die_at_any_step",
                "an_old_copy_that_comes_back_is_given_up",
                "an_epoch_that_is_behind_the_ledger_is_given_up",
                "journals_are_told_and_waited_for",
                "what_comes_late_is_added",
                "what_was_counted_twice_is_taken_back_once",
            ),
            *_of("flow/test_recount", "recounts_what_was_counted"),
            *_of(
                "faults/test_redis_store",
                "an_emptied_redis_is_another_epoch",
                "a_restart_loses_nothing_and_charges_once",
                "lost_scripts_heal_inside_a_pipeline",
            ),
            *_of("faults/test_credits", "lost_redis_is_rebuilt_to_the_unit"),
        ),
        (("`make emptied`", "below"),),
    ),
    Promise(
        "Limits hold exactly",
        "No hard limit is passed by racing callers, sidecars or retries, by any clock, or by a "
        "change of the catalog; reservations resolve once.",
        "0 units; while Redis is away, what the limit's `on_outage` allows.",
        (30, 32, 33, 34, 39),
        (
            *_of("api/test_races", "the_last_units_are_granted_exactly"),
            *_of("faults/test_last_unit", "the_last_unit_is_granted_once"),
            *_of("faults/test_leases", "race_for_the_last_units"),
            *_of("property/test_admit_model", "the_script_and_its_specification_never_differ"),
            *_of(
                "faults/test_peer_defects",
                "the_largest_counter_is_exact",
                "odd_hits_are_refused_by_field",
                "rates_are_exact_whatever_divides_them",
                "skewed_sidecars_share_one_window",
                "a_clock_that_steps_opens_no_second_window",
                "made_up_keys_end_with_their_windows",
            ),
            *_of(
                "domain/test_window_cases",
                "a_zone_s_windows_turn_where_its_clocks_say",
                "billing_periods_keep_their_anchor_s_day",
            ),
            *_of(
                "api/test_live_changes",
                "a_raise_keeps_what_is_used",
                "a_lowered_limit_takes_nothing_back",
                "changes_under_load_lose_no_unit",
            ),
            *_of("e2e/test_catalog", "file_is_reloaded_and_the_last_good_one_kept"),
            *_of(
                "contracts/test_reservations",
                "a_commit_of_less_gives_the_rest_back",
                "an_excess_is_asked_for",
                "a_reservation_is_resolved_once",
                "units_come_back_by_the_stores_clock",
                "an_expired_reservation_is_known_for_the_memory",
            ),
        ),
    ),
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
            ),
            *_of("faults/test_stall", "what_was_given_up_is_never_charged"),
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
                "faults/test_edge",
                "one_call_too_many_is_refused_unread",
                "too_many_bytes_are_refused",
                "what_is_out_of_time_is_not_decoded",
                "calls_that_never_say_what_they_want_end",
                "a_flood_of_pings_is_cut_off",
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
            ),
            *_of("e2e/test_away", "all_roles_wait_for_their_servers"),
            *_of("faults/test_lifecycle", "starts_and_stops_leave_nothing_behind"),
            *_of(
                "faults/test_upgrade",
                "two_texts_of_the_script_decide_alike",
                "entries_of_a_later_version_are_read",
            ),
        ),
    ),
    Promise(
        "No secret is told",
        "What is unexpected reaches a caller as `INTERNAL` with a reference; no reply, message or "
        "log holds a secret.",
        "None.",
        (43,),
        (
            *_of("faults/test_secrets", "no_secret_is_told_on_a_bad_day"),
            *_of("api/test_errors", "an_unexpected_error_tells_a_reference_and_nothing_else"),
            *_of("ops/test_log", "tracebacks_are_redacted", "secrets_within_text_are_hidden"),
        ),
    ),
)
