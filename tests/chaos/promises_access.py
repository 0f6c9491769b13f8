"""What is promised of control's callers, of rights, of secrets that change, and of probes."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

ACCESS: Final[tuple[Promise, ...]] = (
    Promise(
        "Control does for a caller what his roles and tenants cover",
        "With keys, nobody comes in without a token that is trusted now; a name that is only said "
        "counts for nothing. Another tenant's data is denied before it is looked up, in the same "
        "words whether or not it exists. Keys rotate without a refused call.",
        "A token counts until it is over, or its key is taken out.",
        (41,),
        (
            *_of(
                "access/test_control",
                "every_method_is_in_the_table",
                "nobody_comes_in_without_a_token",
                "a_role_that_lacks_is_told_and_recorded",
                "a_name_that_is_only_said_counts_for_nothing",
                "another_tenants_data_is_as_if_it_were_not",
                "what_is_about_all_is_not_for_some",
                "without_keys_control_is_away_and_not_open",
            ),
            *_of(
                "access/test_verifier",
                "claims_are_held_to_the_terms",
                "forged_tokens_are_refused",
                "keys_rotate_without_a_refused_call",
                "a_broken_file_leaves_the_keys",
            ),
            *_of(
                "access/test_key_url",
                "a_new_key_is_found",
                "a_provider_that_fails_leaves_the_keys_for_a_while",
            ),
        ),
    ),
    Promise(
        "A process has the rights that it needs, and follows its passwords",
        "Every process does its work under users of its own, in Redis and in Postgres, and can do "
        "nothing else there. A password that changes is taken over once it works, and no call "
        "fails.",
        "Redis before 7.0 cannot keep a sidecar from writing the catalog.",
        (43,),
        (
            *_of(
                "access/test_least_rights",
                "passwords_rotate_under_load",
                "nothing_else_is_permitted",
                "what_scripts_call_is_permitted",
                "lines_hold_no_password",
            ),
            *_of(
                "access/test_rotation",
                "a_new_secret_is_taken_over_once",
                "a_wrong_password_leaves_the_right_one",
                "an_address_that_does_not_answer_leaves_the_pool",
                "webhook_secrets_are_followed",
            ),
            *_of("access/test_commands", "a_token_leaves_the_machine_encrypted_alone"),
        ),
    ),
    Promise(
        "Probes fail for what they are about",
        "Liveness fails when the event loop stalls, and for nothing else. Readiness does not fail "
        "when Redis or Postgres are away, nor under overload; it does without a catalog, and while "
        "a process drains.",
        "None.",
        (46,),
        (
            *_of(
                "access/test_probes",
                "redis_and_postgres_away_fail_no_probe",
                "a_sidecar_without_a_catalog_has_not_started",
                "overload_fails_no_probe_and_a_drain_readiness_alone",
            ),
            *_of(
                "ops/test_listener",
                "a_stalled_loop_shows",
                "probes_answer_while_the_loop_is_blocked",
            ),
        ),
    ),
)
