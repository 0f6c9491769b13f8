"""What is promised of clients, and which tests show it."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

CLIENTS: Final = (
    Promise(
        "A client does the same in every language",
        "One operation id per logical call, kept over its retries; a deadline always; retries of "
        "UNAVAILABLE alone, within a budget, no sooner than the sidecar asks. Without a sidecar "
        "the caller's policy decides, and is counted. What a buffer has accepted is delivered "
        "once, also by the process that comes after one that was killed, whatever its language.",
        "Here Python, in threads. `make test-clients` plays the same cases with asyncio, Go, "
        "Node.js and Java. A spool of a machine that loses power lacks its last 100 ms, unless "
        "each event is synced.",
        (49,),
        (
            *_of(
                "clients/test_conformance",
                "a_client_does_as_every_client",
                "cases_are_of_every_kind",
            ),
            *_of(
                "clients/test_runner",
                "a_client_that_makes_an_id_per_attempt_is_found_out",
                "what_differs_is_told_with_its_place",
            ),
            *_of("clients/test_pages", "every_client_has_the_one_policy_of_retries"),
        ),
    ),
)
