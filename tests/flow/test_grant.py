"""Credits are granted to balances of the tenant's own plan, with content that makes sense."""

from dataclasses import replace

import pytest

from tallygate.domain.catalog import Limit
from tallygate.domain.credit import GrantAsked
from tallygate.domain.errors import CounterOverflow, InvalidField, NotFound, UnknownTenant
from tallygate.domain.ids import AMOUNT_MAX, LimitId, TenantId
from tallygate.domain.window import DAY_US
from tests.credit_world import BALANCE, CreditWorld, grant
from tests.usage_events import NOON_US


async def world(*limits: Limit) -> CreditWorld:
    """Return a world with a catalog."""
    found = CreditWorld()
    await found.begin(*limits)
    return found


async def test_granted_now_and_for_ever_by_default() -> None:
    """Without times a grant begins at once and never ends."""
    found = await world()
    made, before = await found.granting().grant(grant(reason="trial", actor="ann"))
    assert (made.starts_us, made.created_at_us, before) == (NOON_US, NOON_US, False)
    assert (made.reason, made.actor, made.seq) == ("trial", "ann", 1)
    found.at_us += DAY_US
    assert (await found.granting().grant(grant(reason="trial"))) == (made, True)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (grant(amount=0), "amount"),
        (grant(amount=AMOUNT_MAX + 1), "amount"),
        (grant(grant_id="has space"), "grant_id"),
        (grant(grant_id=""), "grant_id"),
        (grant(reason="x" * 257), "reason"),
        (grant(reason="nul\x00"), "reason"),
        (grant(actor="x" * 257), "actor"),
        (grant(priority=2**31), "priority"),
        (grant(expires_us=NOON_US), "expires_at"),
        (grant(starts_us=NOON_US + DAY_US, expires_us=NOON_US + DAY_US), "expires_at"),
        (grant(limit_id=LimitId("daily")), "limit_id"),
    ],
    ids=str,
)
async def test_nonsense_is_refused(asked: GrantAsked, field: str) -> None:
    """What cannot be meant is refused with the field's name, and nothing is granted."""
    found = await world()
    with pytest.raises(InvalidField) as raised:
        await found.granting().grant(asked)
    assert raised.value.field == field
    assert await found.credits.balances(("", ""), 1, unpublished=False) == []


async def test_balance_must_be_of_the_plan() -> None:
    """A tenant that there is not, and a limit that its plan has not, are told apart."""
    found = await world()
    with pytest.raises(UnknownTenant):
        await found.granting().grant(grant(tenant_id=TenantId("nobody")))
    with pytest.raises(NotFound) as raised:
        await found.granting().grant(grant(limit_id=LimitId("nothing")))
    assert raised.value.field == "limit_id"


async def test_overdraft_counts_towards_what_is_exact() -> None:
    """The plan's overdraft and the grant together stay below 2^53."""
    found = await world()
    with pytest.raises(CounterOverflow):
        await found.granting().grant(grant(amount=AMOUNT_MAX - 49))
    await found.granting().grant(grant(amount=AMOUNT_MAX - 50))


async def test_balance_per_dimension_takes_no_credits() -> None:
    """Burns do not say of which value they are, so that such a balance cannot be kept."""
    found = await world(replace(BALANCE, per="user_id"))
    with pytest.raises(InvalidField, match="user_id"):
        await found.granting().grant(grant())
