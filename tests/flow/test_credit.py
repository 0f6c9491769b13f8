"""Grants reach the counters once and in order, also after a loss; what expires is posted."""

from copy import deepcopy
from dataclasses import replace

import pytest

from tallygate.domain.decision import Mode
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import TenantId, shard_of
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.ports.credit import BalanceState, CreditQuery
from tests.credit_world import ACME, BALANCE, CREDITS, DAILY, SHARDS, CreditWorld, grant
from tests.usage_events import NOON_US

SHARD = shard_of(ACME, SHARDS)


async def world(*grants: int) -> CreditWorld:
    """Return a world with grants of these amounts, not given to the counters yet."""
    found = CreditWorld()
    await found.begin()
    for number, amount in enumerate(grants, 1):
        await found.granting().grant(grant(number, amount))
    return found


async def remaining(found: CreditWorld) -> list[int]:
    """Return what the ledger has left of each grant."""
    return [each.remaining for each in await found.credits.grants(CreditQuery(ACME))]


async def test_a_grant_can_be_used() -> None:
    """Before it is given to the counters nothing beyond the overdraft passes; after it, it does."""
    found = await world(100)
    assert not (await found.use(60)).allowed
    counts = await found.publish().run_once()
    assert (counts.given, counts.waiting, counts.more) == (1, 0, False)
    assert (await found.use(60)).allowed
    assert (await found.left()).remaining == 40 + 50


async def test_grants_are_given_once() -> None:
    """Run after run, and by a process that has just started, a grant adds its units once."""
    found = await world(100)
    publish = found.publish()
    for _ in range(3):
        await publish.run_once()
    await found.publish().run_once()
    assert (await found.left()).limit == 150
    await found.granting().grant(grant(2, 10))
    await publish.run_once()
    await publish.run_once()
    assert (await found.left()).limit == 160
    assert [told for told in found.told if told[0] == "given"] == [
        ("given", (1, 1)),
        # Of the process that has just started, in vain.
        ("given", (0, 0)),
        ("given", (1, 0)),
    ]


async def test_a_crash_before_the_mark_gives_nothing_twice() -> None:
    """Grants given and not marked are given again in vain, also when some was used meanwhile."""
    found = await world(100, 30)
    before = (await found.credits.balances(("", ""), 1, unpublished=False))[0]
    await found.publish().run_once()
    await found.use(40)
    await found.drain()
    # The mark as it was, under an epoch that no counters have: the mark goes back.
    await found.credits.published(replace(before, published_seq=0, published_epoch="none"))
    await found.publish().run_once()
    assert (await found.left()).remaining == 90 + 50
    state = (await found.credits.balances(("", ""), 1, unpublished=False))[0]
    assert (state.published_seq, state.published_epoch) == (2, f"e1.{SHARD}")


async def test_lost_counters_are_rebuilt() -> None:
    """What is left of live grants comes back as the ledger has it, and so does the overdraft."""
    found = await world(100, 30)
    publish = found.publish()
    await publish.run_once()
    await found.use(110)
    await found.drain()
    expected = await found.left()
    found.lose("e2")
    await publish.run_once()
    assert (await remaining(found)) == [0, 20]
    after = await found.left()
    assert (after.remaining, after.resets_at_us) == (expected.remaining, expected.resets_at_us)
    assert not (await found.use(71)).allowed
    assert (await found.use(70)).allowed
    await found.drain()
    found.lose("e3")
    await publish.run_once()
    assert (await found.left()).remaining == 0


async def test_counters_lost_at_the_worst_moment_get_older_grants_too() -> None:
    """Lost after they were looked at and before a new grant came, they get all grants with it."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    await found.granting().grant(grant(2, 10))
    epochs = dict(found.epochs.found)
    found.lose("e2")
    # The look came first: the epochs are still those of before.
    lost, found.epochs.found = found.epochs.found, epochs
    await publish.run_once()
    found.epochs.found = lost
    await publish.run_once()
    assert (await found.left()).remaining == 110 + 50


async def test_what_a_server_forgot_in_a_crash_is_given_again() -> None:
    """A server that started anew with the same epoch may lack its last grants, marked as given."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    await found.use(60)
    before = deepcopy(found.counters.accounts)
    await found.granting().grant(grant(2, 10))
    await publish.run_once()
    assert (await found.left()).limit == 160
    found.counters.accounts = before
    await publish.run_once()
    assert (await found.left()).limit == 150
    found.epochs.lives += 1
    await publish.run_once()
    reading = await found.left()
    assert (reading.limit, reading.remaining) == (160, 50 + 50)
    given = len(found.told)
    await publish.run_once()
    assert [told for told in found.told[given:] if told[0] == "given"] == []


async def test_a_process_that_starts_gives_again_in_vain() -> None:
    """It cannot know what the server forgot while no control ran; what it had, adds nothing."""
    found = await world(100, 10)
    for _ in range(3):
        await found.publish().run_once()
    assert (await found.left()).limit == 160


async def test_overdraft_used_before_the_first_grant_is_repaid_by_it() -> None:
    """Whether the ledger has it yet or not, the first grant pays it back, and only once."""
    for drains in (False, True):
        found = await world()
        await found.use(30)
        if drains:
            await found.drain()
        await found.granting().grant(grant(1, 100))
        await found.publish().run_once()
        assert (await found.left()).remaining == 70 + 50
        await found.drain()
        assert await remaining(found) == [70]
        assert await found.credits.owed(ACME, CREDITS, "") == 0


async def test_overdraft_of_lost_counters_is_owed_still() -> None:
    """Without any grant too, what was used of the overdraft stays used, however often lost."""
    found = await world()
    publish = found.publish()
    await found.use(30)
    await found.drain()
    await publish.run_once()
    for epoch in ("e2", "e3"):
        found.lose(epoch)
        await publish.run_once()
        await found.publish().run_once()
        assert (await found.left()).remaining == 20
    await found.granting().grant(grant(1, 100))
    await publish.run_once()
    assert (await found.left()).remaining == 70 + 50


async def test_used_up_balances_owe_after_a_loss() -> None:
    """With every grant used up, the overdraft in use is told all the same, once."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    await found.use(120)
    await found.drain()
    found.lose("e2")
    await publish.run_once()
    assert (await found.left()).remaining == 30
    await found.granting().grant(grant(2, 100))
    await publish.run_once()
    await found.drain()
    assert (await found.left()).remaining == 80 + 50
    assert await remaining(found) == [0, 80]


async def test_rebuilding_waits_for_the_older_stream() -> None:
    """While an entry from before may hold burns, nothing is given; newer entries do not delay."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    await found.use(60)
    older = found.hold_up(SHARD)
    found.at_us += 1_000_000
    # The burn is in the stream that outlived its counters.
    accounts = dict(found.counters.accounts)
    found.lose("e2")
    counts = await publish.run_once()
    assert (counts.given, counts.waiting) == (0, 1)
    assert found.told[-1] == ("waiting", {"stream": 1, "limit": 0, "refused": 0})
    assert (await found.left()).limit == 50
    found.counters.accounts, new = accounts, found.counters.accounts
    await found.drain()
    found.counters.accounts = new
    found.at_us += 1_000_000
    await found.release(older)
    found.hold_up(SHARD)
    assert (await publish.run_once()).given == 1
    assert (await found.left()).remaining == 40 + 50


async def test_other_shards_do_not_delay() -> None:
    """An entry that waits in a stream of other tenants is no reason to wait."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    found.hold_up((SHARD + 1) % SHARDS)
    found.lose("e2")
    assert (await publish.run_once()).given == 1


async def test_a_tenant_that_moves_takes_its_credits_along() -> None:
    """In the shard of its new parent the balance is as the ledger has it."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    await found.use(60)
    await found.drain()
    parent = next(each for each in map(TenantId, "abcdefgh") if shard_of(each, SHARDS) != SHARD)
    await found.begin(parent=parent)
    await publish.run_once()
    assert (await found.left(parent)).remaining == 40 + 50


async def test_expired_grants_are_not_given() -> None:
    """What has expired meanwhile is passed over, and marked as done."""
    found = await world()
    await found.granting().grant(grant(1, 100, expires_us=NOON_US + 5))
    await found.granting().grant(grant(2, 7))
    found.at_us += 5
    await found.publish().run_once()
    assert (await found.left()).limit == 57
    assert await found.credits.balances(("", ""), 1, unpublished=True) == []


async def test_a_balance_whose_limit_has_gone_waits() -> None:
    """A plan without the limit gives nothing; when the limit is back, the grant is given."""
    found = await world(100)
    publish = found.publish()
    await found.begin(DAILY)
    assert (await publish.run_once()).waiting == 1
    assert (await publish.run_once()).waiting == 1
    await found.begin(BALANCE)
    assert (await publish.run_once()).given == 1


async def test_one_that_waits_keeps_nobody_waiting() -> None:
    """A balance that cannot be given yet does not stand before those on later pages."""
    found = await world()
    for number in range(3):
        asked = grant(number, 10, tenant_id=TenantId(f"gone-{number}"))
        await found.credits.grant(asked, 0, NOON_US)
    await found.granting().grant(grant(9, 100, tenant_id=ACME))
    late = grant(1, 5, tenant_id=TenantId("zz-gone"))
    await found.credits.grant(late, 0, NOON_US)
    publish = found.publish(balances_max=1)
    given = 0
    for _ in range(6):
        given += (await publish.run_once()).given
    assert given == 1


async def test_redis_away_is_told_and_tried_again() -> None:
    """The outage is raised, nothing is marked, and the next run gives the grant."""
    found = await world(100)
    publish = found.publish()
    found.counters.down = True
    with pytest.raises(BackendUnavailable):
        await publish.run_once()
    found.counters.down = False
    assert (await publish.run_once()).given == 1


async def test_counters_that_refuse_are_told() -> None:
    """Grants that the counters have no room for are not marked, and are told by name."""
    found = await world(100)
    publish = found.publish()
    await publish.run_once()
    # The ledger would have refused it: here it was asked of a smaller overdraft.
    await found.credits.grant(grant(2, 2**53 - 101), 0, NOON_US)
    await publish.run_once()
    assert ("refused", "Overflowed") in found.told
    (state,) = await found.credits.balances(("", ""), 1, unpublished=True)
    assert state == BalanceState(ACME, CREDITS, 2, 1, SHARD, f"e1.{SHARD}")


async def test_expiry_is_posted_after_its_grace() -> None:
    """25 hours after a grant's expiry what is left of it is lost, once; units in use come first."""
    found = await world()
    await found.granting().grant(grant(1, 100, expires_us=NOON_US + HOUR_US))
    await found.publish().run_once()
    await found.use(30)
    found.at_us += 26 * HOUR_US - 1
    expire = found.expire()
    assert (await expire.run_once()).given == 0
    # What had been held since before the expiry is settled late, and reaches the ledger now.
    await found.drain()
    found.at_us += 1
    assert (await expire.run_once()).given == 1
    assert (await expire.run_once()).given == 0
    assert await remaining(found) == [0]
    found.at_us += DAY_US
    assert (await expire.run_once()).given == 0


async def test_recorded_use_beyond_all_funds_is_kept_apart() -> None:
    """Use that nobody asked for beforehand takes grants, then overdraft, and the rest is noted."""
    found = await world(10)
    await found.publish().run_once()
    await found.use(70, Mode.RECORD)
    await found.drain()
    assert await remaining(found) == [0]
    assert await found.credits.owed(ACME, CREDITS, "") == 50
    assert sorted((each.grant_seq, each.amount) for each in found.ledger.burns.values()) == [
        (-1, 10),
        (0, 50),
        (1, 10),
    ]
