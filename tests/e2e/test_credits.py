"""Prepaid credits and resets by the command, from an operator to a sidecar and back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tallygate.gen.v1 import quota_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import Finished, Server, rows_of, site, tallygate
from tests.servers import connection, eventually

CATALOG = """\
version: 1
meters:
  requests: {aggregation: sum, unit: request}
plans:
  prepaid:
    limits:
      - {id: credits, meter: requests, kind: balance, low_at: [10]}
      - {id: daily, meter: requests, kind: window, period: day, limit: 1_000}
tenants:
  acme: {plan: prepaid}
"""
SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Parts:
    """A sidecar and a control."""

    serve: Server
    control: Server
    dsn: str

    async def run(self, *arguments: object) -> Finished:
        """Run a verb against the control."""
        return await tallygate(*arguments, "--json", "--control-address", self.control.address)

    async def use(self, operation: str, amount: int) -> quota_pb2.CheckAndConsumeResponse:
        """Use units."""
        async with quota(self.serve.address) as stub:
            return await stub.CheckAndConsume(
                consume(operation, amount, "acme"), timeout=CALL_TIMEOUT_S
            )

    async def remaining(self) -> list[int]:
        """Return what the ledger has left of each grant."""
        finished = await self.run("credit", "list", "acme")
        assert finished.code == 0, finished.err
        return [row["remaining"] for row in rows_of(finished, "credits")]


@pytest.fixture
async def parts(tmp_path: Path, redis_url: str, postgres_dsn: str) -> AsyncIterator[Parts]:
    """A sidecar, and a control that ingests too, with a catalog applied."""
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        every = {"postgres_dsn": postgres_dsn}
        control = await place.start("control", **every)
        await place.start("ingest", **every)
        found = Parts(await place.start("serve"), control, postgres_dsn)
        file = catalogs.write(tmp_path, CATALOG)
        applied = await found.run("apply", "-f", file)
        assert applied.code == 0, applied.err + applied.out
        await found.serve.ready()
        yield found


async def test_credits_are_granted_used_and_listed(parts: Parts) -> None:
    """A grant is usable within moments, adds once, and the ledger shows what is left of it."""
    granting = ("credit", "grant", "acme", "credits", 100, "--id", "invoice-1", "--actor", "ann")
    granted = await parts.run(*granting, "--expires", "2190-01-01", "--reason", "trial")
    assert granted.code == 0, granted.err
    (row,) = rows_of(granted, "credits")
    assert (row["amount"], row["remaining"], row["expires"]) == (100, 100, "2190-01-01T00:00:00Z")
    assert (row["actor"], row["reason"]) == ("ann", "trial")

    async def allowed() -> bool:
        return (await parts.use("first", 60)).allowed

    await eventually(allowed, SETTLE_S, what="credits in the counters")
    assert not (await parts.use("second", 41)).allowed
    again = await parts.run(*granting, "--expires", "2190-01-01", "--reason", "trial")
    assert "nothing was added" in again.err
    other = await parts.run("credit", "grant", "acme", "credits", 7, "--id", "invoice-1")
    assert other.code == 1
    assert "invoice-1" in other.err

    async def settled() -> bool:
        async with connection(parts.dsn) as admin:
            left = await admin.fetchval("select remaining from tallygate.credit_remaining")
        return int(left) == 40

    await eventually(settled, SETTLE_S, what="the burn in the ledger")
    assert await parts.remaining() == [40]
    assert (await parts.use("third", 40)).allowed


async def test_a_limit_is_reset(parts: Parts) -> None:
    """What was used is set back for the sidecar at once, and the audit says by whom and why."""
    await parts.run("credit", "grant", "acme", "credits", 5_000, "--id", "invoice-1")

    async def used_up() -> bool:
        return (await parts.use("first", 900)).allowed

    await eventually(used_up, SETTLE_S, what="credits in the counters")
    assert not (await parts.use("second", 200)).allowed
    resetting = ("reset", "acme", "daily", "--reason", "charged twice", "--actor", "ann")
    done = await parts.run(*resetting, "--id", "reset-1")
    assert done.code == 0, done.err
    (row,) = rows_of(done, "reset")
    assert (row["used before"], row["used after"], row["repeat"]) == (900, 0, False)
    assert (await parts.use("second", 200)).allowed
    (row,) = rows_of(await parts.run(*resetting, "--id", "reset-1"), "reset")
    assert (row["used before"], row["repeat"]) == (900, True)
    balance = await parts.run("reset", "acme", "credits", "--reason", "x", "--actor", "ann")
    assert balance.code == 1
    assert "grant credits instead" in balance.err
    async with connection(parts.dsn) as admin:
        audit = await admin.fetchrow("select * from tallygate.limit_reset")
    assert audit is not None
    assert (audit["actor"], audit["reason"]) == ("ann", "charged twice")


async def test_wrong_words_are_told() -> None:
    """A time or a dimension that is none ends with a line on stderr, before any call."""
    late = tallygate("credit", "grant", "acme", "credits", 5, "--expires", "soon")
    loose = tallygate("reset", "acme", "daily", "--reason", "x", "--dimension", "y")
    for finished, told in zip(
        await asyncio.gather(late, loose), ("'soon'", "KEY=VALUE"), strict=True
    ):
        assert finished.code == 2
        assert told in finished.err
        assert "Traceback" not in finished.err
