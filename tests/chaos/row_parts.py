"""Each fault in its parts, and the tests that show what becomes of each part.

Owns the parts. Refuses to know which promise a test shows: every test here shows one.
"""

from typing import Final

from tests.chaos.promise import tests_of as _of
from tests.chaos.row_parts_clients import CLIENT_PARTS

Parts = tuple[tuple[str, tuple[str, ...]], ...]

_REDIS: Final = "faults/test_redis_store"
_LOST: Final = "faults/test_redis_lost"
_NET: Final = "faults/test_bad_network"
_SESSIONS: Final = "faults/test_postgres_sessions"
_EDGE: Final = "faults/test_edge"
_ODD: Final = "property/test_odd_values"
_PEERS: Final = "faults/test_peer_defects"
_LIVE: Final = "api/test_live_changes"
_HELD: Final = "contracts/test_reservations"
_STORIES: Final = "sim/test_stories"
_STRIPE: Final = "faults/test_stripe"
_STRIPE_AWAY: Final = "faults/test_stripe_outage"
_THREE: Final = "faults/test_destinations"
_CLOSED: Final = "faults/test_period_late"
_INVOICE: Final = "faults/test_invoice_late"
_CHART: Final = "chart/test_render"
_CALLERS: Final = "tls/test_callers"
_PROBES: Final = "access/test_probes"

ROW_PARTS: Final[dict[int, Parts]] = {
    1: (
        ("at every step", _of("sim/test_every_step", "a_death_at_any_step_changes_nothing")),
        ("real processes, at random", _of("e2e/test_crashes", "killed_sidecar_under_load")),
    ),
    2: (
        (
            "ingester",
            _of("faults/test_ingest", "ingester_killed_between_commit_and_acknowledgement"),
        ),
        (
            "relay",
            _of(
                "flow/test_relay_process", "kill_between_send_and_mark_redelivers_under_the_same_id"
            ),
        ),
    ),
    3: (
        ("relay", _of("faults/test_postgres_pauses", "relay_stopped_beyond_its_lease")),
        ("ingester", _of("faults/test_postgres_pauses", "ingester_stopped_beyond_its_claim")),
    ),
    4: (
        ("any bytes not synced", _of("journal/test_damage", "power_is_lost_at_any_moment")),
        ("the whole chain", _of(_STORIES, "what_was_synced_survives_the_loss_of_power")),
    ),
    5: (
        ("torn tail", _of("journal/test_damage", "a_cut_end_loses_the_last_records_only")),
        ("flipped bit", _of("journal/test_damage", "a_flipped_bit_loses_its_record_only")),
        ("empty file", _of("journal/test_damage", "a_file_of_nothing_is_no_harm")),
        (
            "counted and put aside",
            _of("journal/test_damage", "what_cannot_be_read_is_put_aside_and_counted"),
        ),
    ),
    6: (
        ("full, a process", _of("e2e/test_full_disk", "a_full_disk_is_told_and_got_over")),
        ("full, every step", _of("journal/test_disk", "a_full_disk_is_told_and_got_over")),
        ("failed sync", _of("journal/test_disk", "a_failed_sync_is_never_asked_again")),
        ("simulated", _of(_STORIES, "a_disk_that_fails_is_not_promised")),
    ),
    7: (
        ("SIGTERM", _of("e2e/test_crashes", "sigterm_under_load_loses_nothing")),
        (
            "SIGKILL at once",
            _of("e2e/test_crashes", "sigkill_right_after_sigterm_loses_nothing"),
        ),
        ("calls too late", _of("e2e/test_crashes", "sigterm_refuses_late_calls_as_unavailable")),
    ),
    8: (
        ("no leak, no lock", _of("faults/test_lifecycle", "starting_and_stopping_leaves_nothing")),
    ),
    9: (
        ("two scripts", _of("faults/test_upgrade", "two_texts_of_the_script_decide_alike")),
        ("replies", _of("faults/test_upgrade", "messages_of_a_later_version_are_understood")),
        ("entries", _of("faults/test_upgrade", "entries_of_a_later_version_are_read")),
        ("two schemas", _of("sql/test_older_code", "what_older_code_names_stays")),
    ),
    10: (
        ("with its data", _of(_REDIS, "a_restart_loses_nothing_and_charges_once")),
        ("without", _of(_LOST, "a_redis_without_persistence_comes_back_shut")),
        ("emptied", _of(_LOST, "an_emptied_redis_resets_no_strict_limit")),
        ("rebuilt from the ledger", _of("faults/test_redis_loss", "an_emptied_redis_is_rebuilt")),
        ("scripts", _of(_REDIS, "lost_scripts_heal_inside_a_pipeline")),
    ),
    11: (
        ("detected", _of(_LOST, "a_stale_replica_that_takes_over_decides_nothing")),
        (
            "reconciled",
            _of("faults/test_redis_loss", "a_copy_that_lost_its_last_writes_is_given_up"),
        ),
    ),
    12: (
        ("slots and declared keys", _of(_REDIS, "cluster_mode_runs_the_script")),
        ("any operation", _of("property/test_admit_model", "they_do_not_differ_in_a_cluster")),
    ),
    13: (
        (
            "OOM, NOREPLICAS, READONLY, MISCONF, NOPERM, WRONGTYPE",
            _of("faults/test_redis_refusals", "a_refusal_is_one_typed_outcome"),
        ),
        (
            "BUSY",
            _of("faults/test_redis_refusals", "a_server_busy_with_a_script_is_unavailable"),
        ),
        ("LOADING", _of("faults/test_redis_refusals", "a_server_that_is_loading_is_unavailable")),
        ("a foreign key", _of(_REDIS, "a_broken_account_harms_only_its_tenant")),
        ("eviction is told", _of("ops/test_posture", "each_check_follows_its_setting")),
    ),
    14: (
        ("late", _of(_NET, "latency_changes_no_answer", "lateness_beyond_patience_is_an_outage")),
        ("jitter, slices", _of(_NET, "jitter_and_crumbs_at_once_change_no_answer")),
        ("reset mid-reply", _of(_NET, "a_reply_that_is_cut_off_is_charged_once")),
        ("black hole", _of(_NET, "a_black_hole_costs_one_wait_and_then_none")),
        ("one-way", _of(_NET, "a_charge_that_is_not_heard_of_is_found_by_the_retry")),
        ("deadline", _of(_NET, "a_callers_deadline_is_kept")),
        ("no wait while open", _of("flow/test_breaker", "a_hanging_store_costs_one_wait")),
    ),
    15: (
        (
            "replies, charges, connections",
            _of("faults/test_cancellation", "cancelled_calls_are_charged_at_most_once"),
        ),
    ),
    16: (
        ("trim", _of("contracts/test_stream", "unread_entries_are_never_trimmed")),
        ("lost group", _of("contracts/test_stream", "lost_group_is_read_from_the_start")),
        ("dead consumer", _of("contracts/test_stream", "takes_over_what_another_left")),
        ("poison", _of("faults/test_ingest", "poison_among_good_events")),
        ("storm", _of("faults/test_stream_back", "a_storm_of_redeliveries_adds_nothing")),
        ("last id", _of("faults/test_stream_back", "a_group_whose_place_goes_back_reads_again")),
    ),
    17: (
        ("drains, lag", _of("faults/test_postgres_outage", "long_outage_under_load")),
        ("typed refusal", _of("e2e/test_stream_room", "full_streams_push_back")),
    ),
    18: (("unknown result", _of(_SESSIONS, "killed_while_its_commit_is_confirmed")),),
    19: (("eight writers", _of("faults/test_postgres_tail", "tail_beside_slow_commits")),),
    20: (
        (
            "readers held, deliveries not",
            _of(
                "faults/test_postgres_tail",
                "idle_write_in_another_database_holds_readers_not_deliveries",
            ),
        ),
    ),
    21: (
        (
            "deadlock, serialization",
            _of(_SESSIONS, "deadlock_is_tried_again", "serialization_failures_are_tried_again"),
        ),
        ("failover", _of("faults/test_postgres_failover", "failover_under_load_loses_nothing")),
        ("read-only", _of(_SESSIONS, "read_only_primary_is_told_and_left")),
        (
            "pool",
            _of(_SESSIONS, "exhausted_pool_is_told", "cancelled_callers_leak_no_connection"),
        ),
        ("PgBouncer", _of("faults/test_postgres_pooled", "writers_share_sessions")),
    ),
    22: (
        ("edge", _of("faults/test_postgres_values", "edge_refuses_by_field_or_it_persists")),
        ("bisect", _of("faults/test_postgres_values", "poison_is_isolated")),
    ),
    23: (
        ("interrupted", _of("faults/test_postgres_migrations", "migrator_killed_in_the_middle")),
        ("two at once", _of("sql/test_migrations", "two_runs_at_once_share_the_work")),
        (
            "drift",
            _of("faults/test_postgres_migrations", "drift_is_refused_by_the_command"),
        ),
    ),
    24: (("rebase", _of("faults/test_postgres_restore", "restore_into_a_new_cluster")),),
    25: (
        (
            "500 after its effect, connections cut, 409, 429",
            _of(_STRIPE, "a_failure_bills_once", "a_remembered_error_does_not_stay"),
        ),
        ("timeout", _of(_STRIPE, "a_call_that_times_out_bills_once")),
        (
            "429 holds the account back, as long as it says",
            _of(
                _STRIPE, "throttling_holds_the_account_back", "throttling_lasts_as_long_as_it_says"
            ),
        ),
        ("400 on one of a batch", _of(_STRIPE, "one_bad_event_is_left_with_its_reason")),
        ("clocks that differ", _of(_STRIPE, "a_clock_that_is_off_is_told")),
        (
            "a revoked key",
            _of(
                _STRIPE,
                "a_refused_key_pauses_the_sink",
                "a_key_that_cannot_be_read_pauses_the_sink",
            ),
        ),
    ),
    26: (
        (
            "more than a day",
            _of(
                _STRIPE_AWAY,
                "a_day_without_answers",
                "a_day_in_which_nothing_arrived",
                "some_arrived_and_some_did_not",
                "what_nothing_explains_is_left_to_people",
            ),
        ),
        (
            "more than 35 days",
            _of(_STRIPE_AWAY, "more_than_stripe_takes", "in_doubt_and_too_old"),
        ),
    ),
    27: (
        ("slow or failing", _of(_THREE, "one_of_three_is_away")),
        ("a lag of its own", _of(_THREE, "one_of_three_is_away")),
        ("no message before the others", _of(_THREE, "one_message_holds_back_no_other")),
        ("no customer before the others", _of(_THREE, "one_customer_holds_back_no_other")),
    ),
    28: (
        (
            "late",
            _of("faults/test_postgres_late", "late_event_changes_its_own_buckets_alone"),
        ),
        ("replay", _of("faults/test_postgres_late", "replay_of_a_past_day_changes_nothing")),
        ("late for a closed period", _of(_CLOSED, "late_events_after_the_close")),
        ("waited for", _of(_CLOSED, "what_lies_in_a_stream_holds_a_period")),
        ("never stored", _of(_CLOSED, "a_number_that_is_nowhere_holds_a_period")),
        (
            "the issued invoice",
            _of(
                _INVOICE,
                "late_usage_leaves_the_issued_invoice",
                "new_prices_are_of_their_own_time",
                "nobody_edits_an_issued_invoice",
            ),
        ),
        ("billed again by a replay", _of(_INVOICE, "a_replay_bills_nothing_twice")),
        ("replay of a dropped month", _of("flow/test_retention", "a_duplicate_stays_one")),
    ),
    29: (
        ("garbage", _of("faults/test_hostile", "bytes_without_sense_get_a_mapped_status")),
        ("invalid text", _of("api/test_errors", "bytes_that_do_not_decode_are_malformed")),
        ("unknown fields", _of("api/test_errors", "fields_that_are_not_known_are_passed_over")),
        ("size", _of("api/test_errors", "what_is_too_large_is_refused_by_the_transport")),
        ("no deadline", _of("api/test_errors", "a_call_without_a_deadline_gets_one")),
        ("expired deadline", _of(_EDGE, "what_is_out_of_time_is_not_decoded")),
    ),
    30: (
        ("amounts", _of(_ODD, "every_amount_has_a_defined_result_and_none_is_rounded")),
        ("the largest counter", _of(_PEERS, "the_largest_counter_is_exact")),
        ("empty, unseen, long names", _of(_ODD, "a_name_that_cannot_be_is_refused_by_field")),
        ("confusable names", _of(_ODD, "confusable_names_are_strangers")),
        ("100,000 keys", _of(_PEERS, "made_up_keys_end_with_their_windows")),
        ("17 dimensions", _of("faults/test_hostile", "seventeen_dimensions_are_one_too_many")),
    ),
    31: (
        ("at once", _of("api/test_races", "retries_of_one_operation_charge_once")),
        ("other payload", _of("api/test_errors", "a_reused_operation_id_is_refused")),
        ("both at once", _of(_PEERS, "one_operation_with_two_contents_is_one_of_them")),
        (
            "after its memory",
            _of("faults/test_forgotten", "a_forgotten_key_costs_nothing_in_the_end"),
        ),
    ),
    32: (
        ("raised", _of(_LIVE, "a_raise_keeps_what_is_used")),
        ("lowered", _of(_LIVE, "a_lowered_limit_takes_nothing_back")),
        ("reset", _of("contracts/test_refunds", "a_reset_forgets_what_is_not_held")),
        ("deleted", _of(_PEERS, "a_limit_that_goes_and_comes_back_keeps_its_count")),
        ("malformed", _of("catalog/test_bad_documents", "each_fault_is_told_with_its_place")),
        (
            "the last good one",
            _of("e2e/test_catalog", "file_is_reloaded_and_the_last_good_one_kept"),
        ),
    ),
    33: (
        ("less", _of(_HELD, "a_commit_of_less_gives_the_rest_back")),
        ("more", _of(_HELD, "an_excess_is_asked_for")),
        ("twice, or released first", _of(_HELD, "a_reservation_is_resolved_once")),
        ("after its end", _of(_HELD, "an_expired_reservation_is_known_for_the_memory")),
        (
            "owner dies",
            _of(_STORIES, "a_reservation_whose_owner_died_comes_back_at_its_end"),
        ),
    ),
    34: (
        ("window edge", _of(_STORIES, "redis_time_decides_at_the_edge_of_a_window")),
        ("month end", _of("domain/test_window_cases", "billing_periods_keep_their_anchor_s_day")),
        ("DST", _of("domain/test_window_cases", "a_zone_s_windows_turn_where_its_clocks_say")),
        ("step", _of(_PEERS, "a_clock_that_steps_opens_no_second_window")),
        ("two sidecars' skew", _of(_PEERS, "skewed_sidecars_share_one_window")),
    ),
    35: (
        ("goodput, health, recovery", _of("faults/test_overload", "ten_times_too_much")),
        (
            "no storm",
            _of("faults/test_overload", "callers_who_mind_the_pushback_hardly_retry"),
        ),
    ),
    36: (
        ("one hot tenant", _of("faults/test_overload", "one_hot_tenant_leaves_others_alone")),
        (
            "many alike",
            _of("flow/test_fair", "busy_tenants_share_alike_whatever_the_size_of_their_lists"),
        ),
        ("herd", _of("faults/test_overload", "a_herd_is_served_in_turns")),
        ("jittered reset", _of("faults/test_herd", "a_herd_comes_back_apart")),
        ("others", _of("faults/test_herd", "others_hear_nothing_of_a_herd")),
    ),
    37: (
        ("slow loris", _of(_EDGE, "calls_that_never_say_what_they_want_end")),
        ("pings", _of(_EDGE, "a_flood_of_pings_is_cut_off")),
        ("rapid reset", _of(_EDGE, "calls_reset_at_once_leave_nothing_behind")),
        (
            "10,000 idle",
            _of("faults/test_many_connections", "idle_connections_cost_a_bounded_memory"),
        ),
        ("age", _of(_EDGE, "connections_grow_old_without_an_error")),
    ),
    39: (("one grant", _of("faults/test_last_unit", "the_last_unit_is_granted_once")),),
    40: (
        ("none, over, of others", _of(_CALLERS, "bad_certificate_ends_the_handshake")),
        ("no SPIFFE id", _of(_CALLERS, "certificate_without_one_spiffe_id_is_nobody")),
        ("wrong SPIFFE id", _of(_CALLERS, "identity_without_a_rule_is_denied")),
        ("renewed under load", _of("tls/test_rotation", "renewal_under_load_fails_no_call")),
        ("bad renewal", _of("tls/test_rotation", "bad_renewal_keeps_the_last_good")),
    ),
    41: (
        ("every method", _of(_CALLERS, "other_tenant_is_denied_by_every_method")),
        ("nothing told", _of(_CALLERS, "denial_does_not_tell_what_exists")),
        ("reservation", _of(_CALLERS, "reservation_of_another_tenant_is_not_there")),
        ("lists", _of(_CALLERS, "list_is_denied_item_by_item")),
        ("by tokens", _of("access/test_control", "another_tenants_data_is_as_if_it_were_not")),
        ("usage by control", _of("tls/test_control", "role_and_tenants_are_those_of_the_rule")),
    ),
    42: (
        ("another account", _of("tls/test_sockets", "another_account_is_kept_out")),
        ("two servers", _of("faults/test_lifecycle", "a_second_server_cannot_have_the_path")),
        ("left behind", _of("faults/test_lifecycle", "what_a_killed_owner_left_is_taken_over")),
    ),
    43: (
        ("reply", _of("api/test_errors", "an_unexpected_error_tells_a_reference_and_nothing_else")),
        ("logs", _of("e2e/test_secrets", "no_secret_is_told_on_a_bad_day")),
    ),
    44: (
        (
            "every field",
            _of("faults/test_hostile", "hostile_text_is_refused_or_stored_as_it_is"),
        ),
    ),
    45: (
        ("a matrix of values", _of(_CHART, "renders_equal_their_golden_files")),
        ("Kubernetes 1.29 to the newest", _of(_CHART, "kubernetes_takes_it")),
        ("wrong values", _of("chart/test_refusals", "wrong_values_are_refused_by_name")),
        ("lint", _of("chart/test_values", "lint_finds_nothing")),
    ),
    46: (
        ("servers away", _of(_PROBES, "redis_and_postgres_away_fail_no_probe")),
        ("startup", _of(_PROBES, "a_sidecar_without_a_catalog_has_not_started")),
        ("overload, drain", _of(_PROBES, "overload_fails_no_probe_and_a_drain_readiness_alone")),
        ("stall", _of("ops/test_listener", "a_stalled_loop_shows")),
    ),
    47: (
        ("alerts", _of("watch/test_rules", "every_alert_fires_and_resolves")),
        (
            "panels",
            _of(
                "watch/test_dashboards",
                "panels_ask_for_what_exists",
                "promtool_reads_what_is_asked",
            ),
        ),
        ("exposition", _of("watch/test_exposition", "what_is_shown_is_well_formed")),
    ),
    48: (
        (
            "webhook down",
            _of("injector/test_missed", "only_pods_without_what_they_ask_count")
            + _of("injector/test_admission", "what_cannot_be_judged_is_no_answer"),
        ),
        (
            "double injection",
            _of("injector/test_patch", "a_pod_is_injected_once")
            + _of("injector/test_injection", "no_pod_gets_a_second_sidecar"),
        ),
        ("opt-out", _of("injector/test_injection", "nothing_is_injected_unasked")),
        ("hostNetwork", _of("injector/test_injection", "pods_of_the_nodes_network_are_refused")),
    ),
    **CLIENT_PARTS,
}
