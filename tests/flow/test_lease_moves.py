"""What a sidecar has granted by itself is counted where its tenant has gone meanwhile."""

import pytest

from tallygate.domain.ids import AccountId, TenantId, shard_of
from tallygate.ports.carry import Move
from tallygate.testing.carry import FakeCounterCarrier
from tests.builders import ACME, SHARDS, tenant, window
from tests.flow.lease_parts import Leasing, recorded_events

ABOVE = TenantId("next")
FROM, TO = shard_of(ACME, SHARDS), shard_of(ABOVE, SHARDS)
EXPIRED_US = 3_000_000


@pytest.mark.parametrize("late_us", [0, EXPIRED_US], ids=["lease held", "lease expired"])
async def test_leases_are_settled_where_the_tenant_is(late_us: int) -> None:
    """No grant is lost, no event is twice, whether the lease outlives the move or not."""
    it = Leasing(window(limit=1_000_000))
    await it.heat()
    leased = [await it.call() for _ in range(4)]
    assert all(result.decision.leased for result in leased)
    await FakeCounterCarrier(it.inner).carry([Move(ACME, FROM, TO)], 2)
    it.time.us += late_us
    # It has not heard yet: the old shard takes nothing, and nothing is given up.
    await it.settle()
    it.view.tenants = {ACME: tenant("acme", parent=ABOVE), ABOVE: tenant(ABOVE)}
    for _ in range(3):
        await it.settle()
    answered = it.told["allowed"]
    assert (await it.call()).decision.allowed
    await it.close()
    assert it.leases.unsettled == 0
    counters = it.inner.accounts[TO].accounts[AccountId(ACME)].counters
    assert getattr(counters["monthly/month"], "amount", 0) == answered + 1
    assert len(recorded_events(it.inner)) == answered + 1
