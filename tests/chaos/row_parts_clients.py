"""The faults between callers and their sidecar in parts, and the tests of each part."""

from typing import Final

from tests.chaos.promise import tests_of as _of

_ENVOY: Final = "envoy/test_rate_limit"
_CASES: Final = "clients/test_conformance"

CLIENT_PARTS: Final = {
    50: (
        (
            "several descriptors",
            _of(_ENVOY, "together", "each", "exactly_so_many"),
        ),
        ("hits", _of(_ENVOY, "hits")),
        ("unknown domain", _of(_ENVOY, "nothing_to_limit")),
        ("20 ms", _of(_ENVOY, "within_the_budget")),
        ("a real Envoy", _of("envoy/test_real_envoy", "limited_exactly", "sidecar_away")),
    ),
    49: (
        (
            "retries, pushback, replay, deadlines, absence, buffer, spool, reservations, bad input",
            _of(_CASES, "a_client_does_as_every_client", "cases_are_of_every_kind"),
        ),
        (
            "a client that does otherwise",
            _of(
                "clients/test_runner",
                "a_client_that_makes_an_id_per_attempt_is_found_out",
                "what_differs_is_told_with_its_place",
            ),
        ),
        (
            "one policy of retries",
            _of("clients/test_pages", "every_client_has_the_one_policy_of_retries"),
        ),
    ),
}
