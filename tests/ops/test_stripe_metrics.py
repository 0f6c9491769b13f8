"""What Stripe's metrics show of sends that are not done."""

from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.stripe import OPEN, StripeMetrics
from tallygate.domain.stripe_intent import SendState
from tallygate.ports.stripe_store import StripeDepth

NOW_US = 1_795_000_000_000_000


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Return the open sends of the destination by state."""
    return {
        sample.labels["state"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "tallygate_stripe_open"
    }


def test_states_are_shown_before_anything_is_in_them() -> None:
    """A destination that was never sent to shows 0 for each state, and 0 again when all is done."""
    registry = CollectorRegistry()
    metrics = StripeMetrics(registry)
    metrics.measured([], ["stripe"], NOW_US)
    assert shown(registry) == dict.fromkeys(OPEN, 0.0)
    waiting = StripeDepth("stripe", SendState.REJECTED, 3, NOW_US - 5_000_000, 1)
    metrics.measured([waiting], ["stripe"], NOW_US)
    assert shown(registry) == {**dict.fromkeys(OPEN, 0.0), "rejected": 3.0}
    metrics.measured([], [], NOW_US)
    assert shown(registry) == dict.fromkeys(OPEN, 0.0)


def test_every_state_that_is_not_done_is_open() -> None:
    """No state is left out."""
    done = {SendState.DELIVERED, SendState.SETTLED, SendState.SHADOW}
    assert {*OPEN} == {str(each) for each in SendState if each not in done}
