"""Rebuilding: counters that were lost are those of an undisturbed run, whatever breaks off."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from tallygate.domain.balance import Balance
from tallygate.domain.catalog import LimitKind
from tallygate.domain.credit import GrantAsked, GrantId
from tallygate.domain.decision import Fenced, Mode
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import SourceId, TenantId, account_of, shard_of
from tallygate.flow.rebuild import BEHIND, CATALOG, JOURNALS, PAST, STREAM, UNFINISHED, UNKNOWN
from tallygate.flow.recredit import Recredit
from tallygate.ports.epochs import Stage
from tallygate.testing.credit import FakeCreditLedger
from tests.builders import catalog, window
from tests.flow.rebuild_parts import SHARDS, Broken, Installation, allowed, opened


async def test_a_new_installation_opens_at_once() -> None:
    """There is nothing to wait for: it decides after the first run."""
    world = Installation()
    assert isinstance(await world.use("acme", 1, mode=Mode.CONSUME), Fenced)
    await world.run(world.rebuild(), 1)
    assert allowed(await world.use("acme", 1, mode=Mode.CONSUME))


async def test_lost_counters_are_made_anew() -> None:
    """They hold what the ledger has and what was counted meanwhile, and are decided by at once."""
    world = await opened()
    before = world.counters()
    world.lose()
    assert isinstance(await world.use("acme", 50, mode=Mode.CONSUME), Fenced)
    assert allowed(await world.use("acme", 51, 9))
    rebuild = world.rebuild()
    await world.run(rebuild, 1)
    assert isinstance(await world.use("acme", 50, mode=Mode.CONSUME), Fenced)
    await world.ingest()
    assert allowed(await world.use("child", 52, 9))
    await world.run(rebuild, 5)
    assert world.open
    await world.ingest()
    assert world.counters() == await world.recounted()
    assert before != world.counters()
    used = sum(1 + number for number in range(0, 40, 4)) + 9
    left = 1_000 - used
    assert not allowed(await world.use("acme", 60, left + 1, Mode.CONSUME))
    assert allowed(await world.use("acme", 60, left, Mode.CONSUME))


async def test_journals_are_told_and_waited_for() -> None:
    """They see what the ledger has before they hand in; the shard opens once they are done."""
    world = await opened()
    shard = shard_of(TenantId("acme"), SHARDS)
    old = world.stages.state(shard).epoch
    world.lose()
    rebuild = world.rebuild()
    await world.run(rebuild, 1)
    new = world.stages.state(shard)
    assert new.stage is Stage.FILLED
    (seen,) = await world.seen.seen([(SourceId(f"fake.{old}"), shard)])
    assert seen.ranges[0][0] == 1
    await world.seen.announce(shard, new.epoch, SourceId("car"), done=False)
    await world.run(rebuild, 8)
    assert world.told.waits[JOURNALS] == 1
    await world.seen.announce(shard, new.epoch, SourceId("car"), done=True)
    await world.run(rebuild, 1)
    assert world.open


async def test_a_journal_that_never_comes_is_not_waited_for_for_ever() -> None:
    """After the patience the shard opens."""
    world = await opened()
    shard = shard_of(TenantId("acme"), SHARDS)
    world.lose()
    rebuild = world.rebuild()
    await world.run(rebuild, 1)
    epoch = world.stages.state(shard).epoch
    await world.seen.announce(shard, epoch, SourceId("car"), done=False)
    await world.run(rebuild, 40)
    assert world.open


async def test_what_is_left_in_the_stream_is_waited_for() -> None:
    """An old copy has entries of the epoch before: they come to the ledger first."""
    world = await opened()
    assert allowed(await world.use("acme", 70, 5))
    shard = shard_of(TenantId("acme"), SHARDS)
    await world.stages.renew(shard, world.stages.state(shard).epoch)
    world.time.us += 1_000_000
    rebuild = world.rebuild()
    await world.run(rebuild, 5)
    assert world.told.waits[STREAM] == 1
    await world.ingest()
    await world.run(rebuild, 5)
    assert world.open
    assert world.counters() == await world.recounted()


async def test_an_epoch_that_is_behind_the_ledger_is_given_up() -> None:
    """A copy that lost its last writes would give numbers out twice."""
    world = await opened()
    shard = shard_of(TenantId("acme"), SHARDS)
    rebuild = world.rebuild()
    await world.run(rebuild, 2)
    assert world.told.renewals == []
    state = world.stages.state(shard)
    for source, last in list(world.stages.given[shard].items()):
        world.stages.given[shard][source] = last - 1
    await world.run(rebuild, 6)
    assert world.told.renewals == [BEHIND]
    assert world.stages.state(shard).epoch != state.epoch
    assert world.open
    assert world.counters() == await world.recounted()


async def test_an_old_copy_that_comes_back_is_given_up() -> None:
    """Its epoch was closed before: what was counted since is not in its counters."""
    world = await opened()
    old = [world.stages.state(shard) for shard in range(SHARDS)]
    world.lose()
    rebuild = world.rebuild()
    await world.run(rebuild, 6)
    assert allowed(await world.use("acme", 70, 5))
    await world.ingest()
    for state in old:
        world.stages._epochs[state.shard] = (state.epoch, Stage.OPEN)
    await world.run(rebuild, 6)
    assert set(world.told.renewals) == {PAST}
    assert world.open
    assert world.counters() == await world.recounted()


async def test_without_a_catalog_it_stays_shut() -> None:
    """Nobody knows which counters there are."""
    world = await opened()
    world.lose()
    world.plans.catalog = None
    rebuild = world.rebuild()
    await world.run(rebuild, 5)
    assert world.told.waits[CATALOG] == SHARDS
    assert not world.open


async def test_counters_of_before_epochs_were_closed_are_made_anew() -> None:
    """After an upgrade the epoch is the old one, and its counters are nowhere."""
    world = await opened()
    world.ledger.current.clear()
    for shard in range(SHARDS):
        # As the script before had it: the epoch, and no stage.
        epoch = world.stages.state(shard).epoch
        world.stages._epochs[shard] = (epoch, Stage.LOST)
        world.store.shard(shard).accounts.clear()
    await world.run(world.rebuild(), 6)
    assert set(world.told.renewals) == {UNKNOWN}
    assert world.open
    assert world.counters() == await world.recounted()


async def test_one_process_rebuilds() -> None:
    """Another takes over when the first is silent, and begins anew."""
    world = await opened()
    world.lose()
    one, two = world.rebuild("one"), world.rebuild("two")
    await one.run_once()
    assert (await two.run_once()).shut == 0
    epochs = await world.stages.epochs()
    world.time.us += 11_000_000
    await world.run(two, 6)
    assert world.open
    assert set(world.told.renewals) == {UNFINISHED}
    assert await world.stages.epochs() != epochs
    assert (await one.run_once()).shut == 0
    assert world.counters() == await world.recounted()


class Breaks:
    """Dies at the n-th call of any port, before it or after it was carried out."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left, self.after = at, after

    def wrap(self, port: Any) -> Any:
        """Return a port whose calls count."""
        return _Breaking(port, self)


class _Breaking:
    def __init__(self, port: Any, breaks: Breaks) -> None:
        self._port, self._breaks = port, breaks

    def __getattr__(self, name: str) -> Any:
        found, breaks = getattr(self._port, name), self._breaks
        if name == "close":
            return found

        async def call(*args: Any, **named: Any) -> Any:
            breaks.left -= 1
            if breaks.left == 0 and not breaks.after:
                raise Broken
            answer = await found(*args, **named)
            if breaks.left == 0:
                raise Broken
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
async def test_it_may_die_at_any_step(after: bool) -> None:
    """Whoever comes next ends with the counters of the ledger and what was counted since."""
    died = 0
    for at in range(1, 100):
        world = await opened()
        world.lose()
        breaks = Breaks(at, after=after)
        parts = world.parts()
        dying = world.rebuild(
            parts=replace(
                parts,
                **{
                    name: breaks.wrap(getattr(parts, name))
                    for name in ("ledger", "stages", "seen", "stream", "store")
                },
            )
        )
        try:
            await world.use("acme", 80, 3)
            await world.run(dying, 5)
        except Broken:
            died += 1
        await world.use("child", 81, 4)
        await world.ingest()
        await world.run(world.rebuild(), 8)
        assert world.open, at
        assert world.counters() == await world.recounted(), at
        if breaks.left > 0:
            break
    assert died == at - 1 > 20


async def test_an_outage_of_redis_breaks_off_and_begins_anew() -> None:
    """What was half applied is forgotten with its epoch."""
    world = await opened()
    world.lose()
    rebuild = world.rebuild()
    world.store.down = True
    with pytest.raises(BackendUnavailable):
        await rebuild.run_once()
    world.store.down = False
    await world.run(rebuild, 6)
    assert set(world.told.renewals) == {UNFINISHED}
    assert world.open
    assert world.counters() == await world.recounted()


async def test_a_shard_that_nobody_rebuilt_is_noted() -> None:
    """Where new counters open by themselves, what comes later of others is known as late."""
    world = Installation()
    for shard in range(SHARDS):
        epoch = world.stages.state(shard).epoch
        assert await world.stages.advance(shard, epoch, Stage.OPEN)
    await world.run(world.rebuild(), 1)
    assert world.ledger.current == dict(await world.stages.epochs())


async def test_a_copy_that_takes_over_as_a_shard_is_opened_is_not_opened() -> None:
    """Also where the one who rebuilt it dies then: what was not filled is begun anew."""
    world = await opened()
    world.lose()
    dying = world.rebuild()
    await world.stages.states()
    copied = copy.deepcopy((world.store.accounts, world.stages.given, world.stages._epochs))
    await world.run(dying, 2)
    assert {state.stage for state in await world.stages.states()} == {Stage.FILLED}
    advance = world.stages.advance

    async def too_late(*args: Any, **named: Any) -> bool:
        world.store.accounts, world.stages.given, world.stages._epochs = copied
        world.stages.restart()
        await advance(*args, **named)
        raise Broken

    world.stages.advance = too_late  # type: ignore[method-assign]  # the process dies there
    with pytest.raises(Broken):
        await world.run(dying, 5)
    world.stages.advance = advance  # type: ignore[method-assign]
    shut = {state.stage for state in await world.stages.states()}
    assert shut == {Stage.LOST}
    world.time.us += 11_000_000
    await world.run(world.rebuild("two"), 8)
    assert world.open
    assert set(world.told.renewals) == {UNFINISHED}
    assert world.counters() == await world.recounted()


async def test_balances_have_their_grants_before_journals_hand_in() -> None:
    """What is handed in is taken from what the ledger says is left: once SEEN, it is there."""
    world = Installation()
    prepaid = window("credits", 0, kind=LimitKind.BALANCE, period=None)
    world.plans.catalog = catalog(prepaid)
    credits_ = FakeCreditLedger(world.ledger)
    asked = GrantAsked(TenantId("acme"), prepaid.limit_id, GrantId("one"), 10)
    await credits_.grant(asked, 0, world.time.now_us())
    parts = replace(world.parts(), recredit=Recredit(credits_, world.plans, SHARDS))
    await world.run(world.rebuild(parts=parts), 1)
    world.lose()
    shard = shard_of(TenantId("acme"), SHARDS)
    rebuild = world.rebuild(parts=parts)
    await world.run(rebuild, 1)
    assert world.stages.state(shard).stage is Stage.FILLED
    (balance,) = world.store.shard(shard).accounts[account_of(TenantId("acme"))].counters.values()
    assert isinstance(balance, Balance)
    assert [(each.seq, each.remaining) for each in balance.grants] == [(1, 10)]
