"""What is promised of the day on which something is gone for good."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

OPERATING: Final[tuple[Promise, ...]] = (
    Promise(
        "What is gone for good is made whole",
        "A sidecar's disk, Redis, the Postgres primary, the ledger since a point, a whole region, "
        "a catalog or a deploy that was wrong: each is cured by the steps of its page, under load.",
        "0 events; going back, and a region, lose what the page says, until it is handed in again.",
        (10, 24),
        (
            *_of("operating/test_rehearse", "a_disaster_is_cured"),
            *_of(
                "flow/test_settle_numbers",
                "only_what_was_lost_is_settled",
                "what_is_lost_while_comparing_waits",
            ),
        ),
        (
            ("`make rehearse`", "[the last rehearsal](operating/rehearsal.md)"),
            ("`make game-day`", "[below](#larger-runs)"),
        ),
    ),
)
