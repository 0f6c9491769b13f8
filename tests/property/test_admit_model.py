"""The script in Redis and its specification in `domain/account.py` never differ."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.adapters.embedded import EmbeddedRedis
from tests.conftest import NEWEST_REDIS
from tests.property.seeded import run as run_seed
from tests.property.shard_limits import Choice
from tests.property.shard_world import World
from tests.servers import CLUSTER_OPTIONS, RedisBinary, claim_slots, run

STEPS = 50
CLUSTER_SEEDS, CLUSTER_STEPS = range(1, 4), 400


class Drawn:
    """Choices that hypothesis makes, and shrinks when they fail."""

    def __init__(self, drawn: st.DataObject) -> None:
        self._drawn = drawn

    def one_of(self, options: Sequence[Choice]) -> Choice:
        """Return one of the options."""
        return options[self._drawn.draw(st.integers(0, len(options) - 1))]

    def integer(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        return self._drawn.draw(st.integers(low, high))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all steps of a run."""
    with asyncio.Runner() as running:
        yield running


def test_the_script_and_its_specification_never_differ(
    redis_url: str, redis_binary: RedisBinary, runner: asyncio.Runner
) -> None:
    """Outcomes, counters, holds and stream are equal after every step, on every server version."""
    # Fewer than 200 runs were seen to miss a planted error in the script; another server's version
    # differs in less.
    least = 200 if redis_binary == NEWEST_REDIS else 50

    @settings(max_examples=max(least, settings().max_examples), deadline=None)
    @given(drawn=st.data())
    def drive(drawn: st.DataObject) -> None:
        world = World(redis_url, runner, Drawn(drawn))
        try:
            world.begin()
            for _ in range(drawn.draw(st.integers(1, STEPS))):
                world.step()
        finally:
            world.close()

    drive()


@pytest.fixture
def cluster_url(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a cluster of one node, which serves every slot."""
    folder = tmp_path_factory.mktemp("cluster")
    server = EmbeddedRedis(folder, binary=redis_binary.path, tcp_port=0, options=CLUSTER_OPTIONS)
    run(server.start())
    try:
        run(claim_slots(server))
        yield server.url
    finally:
        run(server.stop())


def test_they_do_not_differ_in_a_cluster(cluster_url: str) -> None:
    """Where a call must name every key that it touches, and all in one slot, nothing changes."""
    for seed in CLUSTER_SEEDS:
        met = run_seed(cluster_url, seed, CLUSTER_STEPS)
        assert met["COMMIT Decided allowed"]
        assert met["REFUND Decided allowed"]
