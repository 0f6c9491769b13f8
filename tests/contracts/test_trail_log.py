"""What every `TrailLog` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator

import pytest

from tallygate.adapters.postgres import trail as module
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.domain.trail import ChainCheck, TrailEntry, TrailHead, TrailLink
from tallygate.flow.trail import verify_trail
from tallygate.ports.trail import TrailLog, TrailQuery
from tallygate.testing.trail import FakeTrailLog

PAGE = 2


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the log's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def log(dsn: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TrailLog]:
    """Each kind of log, with small pages."""
    if dsn is None:
        yield FakeTrailLog(page_max=PAGE)
        return
    monkeypatch.setattr(module, "PAGE", PAGE)
    postgres = Postgres(dsn)
    yield PostgresTrailLog(postgres)
    await postgres.close()


def entry(number: int = 1, **fields: str) -> TrailEntry:
    """Return an entry by ada, with other fields replaced."""
    values = {"actor": "ada", "role": "control", "action": f"Action{number}", "call_id": "c"}
    return TrailEntry(**{**values, **fields})


async def rows(log: TrailLog) -> tuple[TrailHead, list[TrailLink]]:
    """Return the whole chain."""
    async with log.chain() as chain:
        return chain.head, [link async for page in chain.pages for link in page]


async def test_empty_log_holds(log: TrailLog) -> None:
    """An empty chain has number 0 and zero bytes at its end."""
    assert await rows(log) == (TrailHead(), [])
    assert await verify_trail(log, ChainCheck()) == []


async def test_rows_follow_each_other(log: TrailLog) -> None:
    """Numbers have no gap, each row has the hash of the one before, and times do not go back."""
    assert await log.append([entry(1), entry(2)]) == 2
    assert await log.append([entry(3)]) == 3
    head, links = await rows(log)
    assert [link.seq for link in links] == [1, 2, 3]
    assert [link.prev_hash for link in links] == [TrailHead().hash, *(x.hash for x in links[:-1])]
    assert [link.at_us for link in links] == sorted(link.at_us for link in links)
    assert head == TrailHead(3, links[-1].hash)
    assert await verify_trail(log, ChainCheck()) == []


@pytest.mark.parametrize(
    "text", ["", "ü,{}\"'\\", "12:34,", "NULL", "a\nb\tc", "\x7f\U0001f600", "x" * 5_000]
)
async def test_every_text_is_hashed_alike(log: TrailLog, text: str) -> None:
    """What Postgres hashes is what we hash, whatever a field holds."""
    await log.append([entry(actor=text, request=text, tenant_id=text), entry(outcome=text)])
    assert await verify_trail(log, ChainCheck()) == []
    _, links = await rows(log)
    assert (links[0].entry.actor, links[1].entry.outcome) == (text, text)


async def test_pages_are_the_newest_first(log: TrailLog) -> None:
    """A page has the newest rows that are asked for, and the next goes on before its last."""
    await log.append([entry(number, tenant_id="acme" if number % 2 else "") for number in range(6)])
    first = await log.page(TrailQuery(limit=2))
    assert [link.seq for link in first] == [6, 5]
    following = await log.page(TrailQuery(limit=9, before=first[-1].seq))
    assert [link.seq for link in following] == [4, 3, 2, 1]
    assert [x.seq for x in await log.page(TrailQuery(tenant_id="acme"))] == [6, 4, 2]
    assert [x.seq for x in await log.page(TrailQuery(action="Action3", actor="ada"))] == [4]
    assert await log.page(TrailQuery(actor="eve")) == []
    at_us = first[0].at_us
    assert [x.seq for x in await log.page(TrailQuery(from_us=at_us))] == [6]
    assert [x.seq for x in await log.page(TrailQuery(to_us=at_us, limit=1))] == [5]


async def test_a_noted_hash_is_found_again(log: TrailLog) -> None:
    """A hash that was written down holds for the same chain, and for no other."""
    await log.append([entry(1), entry(2)])
    head, _ = await rows(log)
    await log.append([entry(3)])
    assert await verify_trail(log, ChainCheck({head.seq: head.hash})) == []
    (found,) = await verify_trail(log, ChainCheck({head.seq: bytes(32)}))
    assert (found.seq, found.flaw) == (2, "rewritten")
    (missing,) = await verify_trail(log, ChainCheck({9: bytes(32)}))
    assert (missing.seq, missing.flaw) == (9, "rewritten")
