"""What is promised to those who run Envoy, and which tests show it."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

ENVOY: Final = (
    Promise(
        "Envoy is limited exactly by the plans, whatever it asks",
        "A call is over its limit if any of its descriptors is; of one tenant's, all are charged "
        "or none, and a call that is refused is not billed. No hits take nothing; what no rule is "
        "for passes; who cannot be charged does not. Imported limits decide what "
        "envoyproxy/ratelimit does. An entry of an access log is recorded once.",
        "Descriptors of several tenants in one call are charged apart. Entries that Envoy has sent "
        "into a connection that broke are lost.",
        (50,),
        (
            *_of(
                "envoy/test_rate_limit",
                "exactly_so_many",
                "hits",
                "together",
                "each",
                "nothing_to_limit",
                "bad_requests",
                "who_cannot_be_charged",
                "shadow",
                "within_the_budget",
                "redis_away",
                "many_at_once",
                "rules_for_callers",
            ),
            *_of(
                "envoy/test_real_envoy", "limited_exactly", "sidecar_away", "connections_are_billed"
            ),
            *_of("envoy/test_import", "decides_the_same"),
            *_of("envoy/test_access_logs", "tried_until_recorded", "sender_waits", "redelivered"),
        ),
    ),
)
