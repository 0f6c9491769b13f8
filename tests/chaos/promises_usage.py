"""What is promised of answers, usage and limits."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

USAGE: Final[tuple[Promise, ...]] = (
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
            *_of("faults/test_forgotten", "a_forgotten_key_costs_nothing_in_the_end"),
            *_of("faults/test_peer_defects", "one_operation_with_two_contents_is_one_of_them"),
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
                "sim/test_stories",
                "a_relay_that_slept_through_its_lease_marks_nothing",
                "a_commit_of_unknown_result_is_tried_again",
                "a_lost_consumer_group_loses_no_entry",
            ),
            *_of(
                "faults/test_stream_back",
                "a_storm_of_redeliveries_adds_nothing",
                "a_group_whose_place_goes_back_reads_again",
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
            ("`make million`", "[below](#larger-runs)"),
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
            *_of("e2e/test_full_disk", "a_full_disk_is_told_and_got_over"),
            *_of("e2e/test_outage", "the_next_process_goes_on"),
            *_of(
                "e2e/test_journal",
                "the_ledger_is_waited_for_and_trims_the_journal",
                "what_redis_lost_comes_from_the_journal",
            ),
            *_of(
                "sim/test_stories",
                "what_was_synced_survives_the_loss_of_power",
                "a_disk_that_fails_is_not_promised",
            ),
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
                "a_copy_that_takes_over_as_a_shard_is_opened_is_not_opened",
            ),
            *_of(
                "flow/test_correct",
                "what_comes_late_is_added",
                "what_was_counted_twice_is_taken_back_once",
                "a_correction_that_a_copy_has_not_is_given_again",
            ),
            *_of("flow/test_recount", "recounts_what_was_counted"),
            *_of(
                "faults/test_redis_store",
                "an_emptied_redis_is_another_epoch",
                "a_restart_loses_nothing_and_charges_once",
                "lost_scripts_heal_inside_a_pipeline",
            ),
            *_of(
                "faults/test_redis_loss",
                "an_emptied_redis_is_rebuilt",
                "a_copy_that_lost_its_last_writes_is_given_up",
                "a_sidecar_that_knows_better_gives_the_copy_up",
                "what_an_ingester_still_held_is_added",
            ),
            *_of(
                "faults/test_redis_lost",
                "an_emptied_redis_resets_no_strict_limit",
                "a_redis_without_persistence_comes_back_shut",
                "an_old_copy_that_was_loaded_is_a_loss",
                "a_stale_replica_that_takes_over_decides_nothing",
            ),
            *_of(
                "flow/test_journal",
                "a_copy_that_had_not_heard_of_a_number_is_found_without_a_call",
                "a_live_reservation_is_made_again",
            ),
            *_of(
                "sim/test_stories",
                "a_strict_limit_holds_though_redis_loses_its_data",
                "a_reservation_is_held_on_though_redis_is_emptied",
            ),
            *_of("faults/test_credits", "lost_redis_is_rebuilt_to_the_unit"),
        ),
        (("`make emptied`", "[below](#larger-runs)"),),
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
            *_of(
                "sim/test_stories",
                "redis_time_decides_at_the_edge_of_a_window",
                "a_step_of_the_clock_passes_no_limit",
                "a_reservation_whose_owner_died_comes_back_at_its_end",
            ),
            *_of(
                "property/test_odd_values",
                "every_amount_has_a_defined_result_and_none_is_rounded",
                "a_name_that_cannot_be_is_refused_by_field",
                "confusable_names_are_strangers",
            ),
            *_of(
                "api/test_live_changes",
                "what_measures_otherwise_starts_anew",
                "a_reservation_of_a_limit_that_went_gives_its_units_back",
            ),
            *_of("faults/test_peer_defects", "a_limit_that_goes_and_comes_back_keeps_its_count"),
            *_of("catalog/test_bad_documents", "each_fault_is_told_with_its_place"),
            *_of("catalog/test_file_view", "a_broken_file_is_told_once"),
            *_of("contracts/test_refunds", "a_reset_forgets_what_is_not_held"),
            *_of(
                "api/test_reservations",
                "each_reservation_resolves_once",
                "racing_commits_settle_once",
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
)
