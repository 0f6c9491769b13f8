"""A reset happens once per operation, and is in the audit before anybody is told of it."""

from dataclasses import replace

import pytest

from tallygate.domain.credit import LimitReset
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.errors import (
    BackendUnavailable,
    InvalidField,
    NotFound,
    OperationIdReused,
    UnknownTenant,
)
from tallygate.domain.ids import LimitId, OperationId, TenantId, account_of, shard_of
from tallygate.domain.limit import charge
from tallygate.domain.window import DAY_US, Calendar
from tallygate.flow.reset import ResetAsked
from tallygate.testing.credit import FakeResetAudit
from tests.credit_world import ACME, DAILY, PER_USER, SHARDS, CreditWorld
from tests.usage_events import NOON_US


class LosesWrites(FakeResetAudit):
    """An audit that goes away before it is written."""

    async def write(self, reset: LimitReset) -> LimitReset:
        """Do not answer."""
        raise BackendUnavailable


async def world(used: int = 70, user: str = "") -> CreditWorld:
    """Return a world in which so much is used of the daily limit, or of a user's."""
    found = CreditWorld()
    await found.begin()
    limit, account = DAILY, account_of(ACME)
    if user:
        limit, account = PER_USER, account_of(ACME, "user_id", user)
    bound = charge(limit, account, Calendar(), used, NOON_US)
    operation = Operation(
        Mode.CONSUME, ACME, shard_of(ACME, SHARDS), charges=(bound,), event_count=1
    )
    await found.counters.decide([operation])
    return found


def asked(number: int = 1, **fields: object) -> ResetAsked:
    """Return what resets the daily limit under the operation `op-NUMBER`."""
    values: dict[str, object] = {
        "tenant_id": ACME,
        "limit_id": DAILY.limit_id,
        "operation_id": OperationId(f"op-{number}"),
        "reason": "a bug charged twice",
        "actor": "ann",
        "dimensions": {},
    }
    return ResetAsked(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


async def test_what_is_used_is_set_back() -> None:
    """The counter stands at 0 afterwards; the audit says from where, why, by whom and when."""
    found = await world()
    reset, before = await found.resetting().reset(asked())
    assert (reset.used_before, reset.used_after, before) == (70, 0, False)
    assert (reset.reason, reset.actor, reset.reset_at_us) == ("a bug charged twice", "ann", NOON_US)
    again, _ = await found.resetting().reset(asked(2))
    assert (again.used_before, again.used_after) == (0, 0)
    assert len(found.audit.resets) == 2


async def test_a_repeat_resets_nothing() -> None:
    """The same operation is answered from the audit, long after Redis has forgotten it."""
    found = await world()
    first, _ = await found.resetting().reset(asked())
    found.at_us += DAY_US
    found.counters.down = True
    assert await found.resetting().reset(asked(reason="told better")) == (first, True)


async def test_a_lost_audit_is_written_by_the_repeat() -> None:
    """When the audit was away the caller has no answer; the repeat has the first readings."""
    found = await world()
    kept, found.audit = found.audit, LosesWrites()
    with pytest.raises(BackendUnavailable):
        await found.resetting().reset(asked())
    found.audit = kept
    reset, replayed = await found.resetting().reset(asked())
    assert (reset.used_before, reset.used_after, replayed) == (70, 0, True)


async def test_an_operation_resets_one_thing() -> None:
    """The id of a reset of something else is refused, whether the audit or Redis knows it."""
    found = await world()
    await found.resetting().reset(asked())
    other = asked(limit_id=PER_USER.limit_id, dimensions={"user_id": "7"})
    with pytest.raises(OperationIdReused):
        await found.resetting().reset(other)
    found.audit.resets.clear()
    with pytest.raises(OperationIdReused):
        await found.resetting().reset(other)


async def test_one_value_of_a_dimension_is_reset() -> None:
    """Of a limit per dimension, the value named is set back and no other."""
    found = await world(30, user="7")
    reset, _ = await found.resetting().reset(
        asked(limit_id=PER_USER.limit_id, dimensions={"user_id": "8"})
    )
    assert (reset.scope, reset.used_before) == ("user_id=8", 0)
    reset, _ = await found.resetting().reset(
        asked(2, limit_id=PER_USER.limit_id, dimensions={"user_id": "7"})
    )
    assert (reset.scope, reset.used_before, reset.used_after) == ("user_id=7", 30, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": " "}, "reason"),
        ({"actor": ""}, "actor"),
        ({"reason": "x" * 257}, "reason"),
        ({"limit_id": LimitId("credits")}, "limit_id"),
        ({"dimensions": {"user_id": "7"}}, "dimensions"),
        ({"limit_id": PER_USER.limit_id}, "dimensions"),
        ({"limit_id": PER_USER.limit_id, "dimensions": {"model": "x"}}, "dimensions"),
    ],
    ids=str,
)
async def test_nonsense_is_refused(fields: dict[str, object], field: str) -> None:
    """What cannot be reset is refused with the field's name, and audited nowhere."""
    found = await world()
    with pytest.raises(InvalidField) as raised:
        await found.resetting().reset(asked(1, **fields))
    assert raised.value.field == field
    assert not found.audit.resets


async def test_limit_must_be_of_the_plan() -> None:
    """A tenant that there is not, and a limit that its plan has not, are told apart."""
    found = await world()
    with pytest.raises(UnknownTenant):
        await found.resetting().reset(asked(tenant_id=TenantId("nobody")))
    with pytest.raises(NotFound):
        await found.resetting().reset(asked(limit_id=LimitId("nothing")))


async def test_the_stores_clock_picks_the_window() -> None:
    """A process whose clock is a day behind resets today's window all the same."""
    found = await world()
    slow = replace_clock(found, NOON_US - 2 * DAY_US)
    reset, _ = await slow.resetting().reset(asked())
    assert (reset.used_before, reset.reset_at_us) == (70, NOON_US)


def replace_clock(found: CreditWorld, at_us: int) -> CreditWorld:
    """Return a world with the same stores and another process's clock."""
    other = CreditWorld(at_us=at_us, catalogs=found.catalogs, audit=replace(found.audit))
    other.counters = found.counters
    return other
