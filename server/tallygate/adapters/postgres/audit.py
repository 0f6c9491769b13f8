"""The ledger compared with what was made of it, by Postgres itself.

Guarantees: one snapshot for each comparison, which changes nothing and can run on a replica; what
crosses the wire are differences and totals, at most `FOUND_MAX` of each.
Refuses to know: counters, and what is done about a difference.

A transaction stores events with their rollups and messages, so that in a snapshot of a live ledger
all of them agree: no retry is needed, and nothing is in flight between them.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.wanted import Stretch
from tallygate.adapters.postgres.wanted import wanted as stretches
from tallygate.domain.drift import NOTHING, Check, Difference, Figures, Level, Unequal, spelled
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.audit import FOUND_MAX, DestinationTotal, Month

# A comparison reads a month of events, or all messages: hours on a large ledger's disks.
PATIENCE_S: Final = 4 * 3_600
_LEVELS: Final = {
    Level.EVENTS_MINUTE: "verify_minutes",
    Level.MINUTE_HOUR: "verify_hours",
    Level.MINUTE_DAY: "verify_days",
}
_USAGE: Final = "usage.batch"


class PostgresLedgerAudit:
    """The `LedgerAudit` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def months(self, tenant_id: TenantId | None) -> Sequence[Month]:
        """Return the months there are, by time. See the port."""
        async with snapshot(self._postgres) as connection:
            rows = await connection.fetch(query("verify_months"), tenant_id, timeout=PATIENCE_S)
        return [
            Month(row["from_us"], row["to_us"], row["leaf"], row["events"], row["dropped"])
            for row in rows
        ]

    async def unequal(self, month: Month, tenant_id: TenantId | None) -> Sequence[Unequal]:
        """Return the buckets of a month that differ between events, minutes, hours and days."""
        found: list[Unequal] = []
        async with snapshot(self._postgres) as connection:
            for level, name in _LEVELS.items():
                # Of a month that was dropped, rollups stand against its archive: see `archives`.
                if month.dropped and level is Level.EVENTS_MINUTE:
                    continue
                asked = (month.from_us, month.to_us, tenant_id)
                rows = await some(connection, name, *asked)
                found += [_unequal(level, row) for row in rows]
        return found

    async def unnamed(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return events without key, keys without event, events twice, or without number."""
        async with snapshot(self._postgres) as connection:
            keys = await some(connection, "verify_keys", tenant_id)
            numbers = await some(connection, "verify_numbers", tenant_id)
        return [*map(_unnamed, keys), *map(_unnumbered, numbers)]

    async def untold(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what messages tell otherwise than the ledger has it, twice, or not at all."""
        async with snapshot(self._postgres) as connection:
            wanted = await stretches(connection)
            usage = _merged(each for each in wanted if each[1] == _USAGE)
            starts, ends = [each[0] for each in usage], [each[1] for each in usage]
            events = await some(connection, "verify_told", tenant_id, starts, ends)
            others = [each for each in wanted if each[1] != _USAGE]
            _, types, begins, stops = _columns(others)
            rows = await some(connection, "verify_crossings", tenant_id, types, begins, stops)
        return [*map(_untold, events), *map(_miscounted, rows)]

    async def undelivered(self) -> Sequence[Difference]:
        """Return messages without a delivery they should have, and deliveries that cannot be."""
        async with snapshot(self._postgres) as connection:
            columns = _columns(await stretches(connection))
            missing = await some(connection, "verify_undelivered", *columns)
            impossible = await some(connection, "verify_deliveries")
        return [*map(_undelivered, missing), *map(_impossible, impossible)]

    async def destinations(self, tenant_id: TenantId | None) -> Sequence[DestinationTotal]:
        """Return what each destination was told, by meter."""
        async with snapshot(self._postgres) as connection:
            rows = await some(connection, "verify_destinations", tenant_id)
        return [
            DestinationTotal(
                destination=row["destination"],
                meter=row["meter"],
                events=row["events"],
                told=int(row["told"]),
                delivered=int(row["delivered"]),
                parked=int(row["parked"]),
                ledger=int(row["ledger"]),
            )
            for row in rows
        ]

    async def accounts(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return accounts of balances that differ from their postings."""
        async with snapshot(self._postgres) as connection:
            rows = await some(connection, "verify_accounts", tenant_id)
        return [
            Difference(
                check=Check.BALANCE,
                what="credit_account",
                tenant_id=TenantId(row["tenant_id"]),
                where=f"{row['limit_id']} {row['account']}",
                expected=int(row["units"]),
                found=int(row["balance"]),
                detail="the account is not the sum of its postings",
            )
            for row in rows
        ]

    async def archives(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what rollups and keys have otherwise than the archives of dropped months."""
        async with snapshot(self._postgres) as connection:
            rows = await some(connection, "verify_archives", tenant_id)
        return [_unlike_archive(row) for row in rows]


@asynccontextmanager
async def snapshot(postgres: Postgres) -> AsyncIterator[Lent]:
    """Lend a connection that sees one moment, and may take hours."""
    async with (
        postgres.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
        yield connection


async def some(connection: Lent, name: str, *asked: object) -> list[asyncpg.Record]:
    """Return the first rows of a query, so many that a person has enough of them."""
    cursor = await connection.cursor(query(name), *asked, timeout=PATIENCE_S)
    return list(await cursor.fetch(FOUND_MAX, timeout=PATIENCE_S))


def _merged(stretches: Iterator[Stretch]) -> list[tuple[int, int]]:
    """Return the times in which some destination wanted it; they may overlap."""
    return sorted({(from_us, to_us) for _, _, from_us, to_us in stretches})


def _columns(stretches: Sequence[Stretch]) -> tuple[list[str], list[str], list[int], list[int]]:
    return (
        [each[0] for each in stretches],
        [each[1] for each in stretches],
        [each[2] for each in stretches],
        [each[3] for each in stretches],
    )


def _unequal(level: Level, row: asyncpg.Record) -> Unequal:
    return Unequal(
        level=level,
        tenant_id=TenantId(row["tenant_id"]),
        meter=MeterName(row["meter"]),
        bucket_us=row["bucket_us"],
        finer=_figures(row, "fine"),
        coarser=_figures(row, "coarse"),
    )


def _figures(row: asyncpg.Record, side: str) -> Figures:
    if row[f"{side}_count"] is None:
        return NOTHING
    return Figures(*(int(row[f"{side}_{name}"]) for name in ("count", "sum", "max", "min")))


def _unlike_archive(row: asyncpg.Record) -> Difference:
    keys = row["figure"] == "keys"
    return Difference(
        check=Check.LEDGER if keys else Check.ROLLUP,
        what="event_key" if keys else f"usage_day.{row['figure']}",
        tenant_id=TenantId(row["tenant_id"]),
        where=f"{row['meter']} {spelled(row['month_us'])}".lstrip(),
        expected=int(row["expected"]),
        found=int(row["found"]),
        detail="the month was dropped, and its archive has another figure",
    )


def _unnamed(row: asyncpg.Record) -> Difference:
    events, keys = row["events"], row["keys"]
    if not events:
        what, detail = "usage_event", "the key has no event"
    elif not keys:
        what, detail = "event_key", "the event has no key"
    elif events > 1:
        what, detail = "usage_event", "the event is there more than once"
    else:
        what, detail = "event_key", "the key has another time than its event"
    return Difference(
        check=Check.LEDGER,
        what=what,
        tenant_id=TenantId(row["tenant_id"]),
        where=row["event_id"],
        expected=1,
        found=events if what == "usage_event" else keys,
        detail=detail,
    )


def _unnumbered(row: asyncpg.Record) -> Difference:
    return Difference(
        check=Check.LEDGER,
        what="source_progress",
        tenant_id=TenantId(row["tenant_id"]),
        where=f"{row['source_id']}/{row['source_lane']}/{row['source_seq']}",
        expected=1,
        found=0,
        detail=f"the number of event {row['event_id']} is not marked as seen",
    )


def _untold(row: asyncpg.Record) -> Difference:
    messages = row["messages"]
    expected, found = row["amount"], row["told_amount"]
    if not messages:
        detail, expected, found = "no message tells of the event", 1, 0
    elif not row["amount"]:
        detail, expected, found = "the ledger has no such event", 0, messages
    elif messages > 1:
        detail, expected, found = "more than one message tells of the event", 1, messages
    elif row["meter"] != row["told_meter"]:
        detail = f"told as {row['told_meter']}, in the ledger as {row['meter']}"
    else:
        detail = "told with another amount than the ledger has"
    return Difference(
        check=Check.DELIVERY,
        what=f"message {row['message_id']}" if messages else _USAGE,
        tenant_id=TenantId(row["tenant_id"]),
        where=row["event_id"],
        expected=expected,
        found=found,
        detail=detail,
    )


def _miscounted(row: asyncpg.Record) -> Difference:
    return Difference(
        check=Check.DELIVERY,
        what=row["type"],
        tenant_id=TenantId(row["tenant_id"] or ""),
        where=f"{row['limit_id']} {row['place']}",
        expected=row["expected"],
        found=row["messages"],
        detail="messages that tell of it",
    )


def _undelivered(row: asyncpg.Record) -> Difference:
    return Difference(
        check=Check.DELIVERY,
        what=row["destination"],
        tenant_id=TenantId(""),
        where=f"message {row['message_id']}",
        expected=1,
        found=0,
        detail=f"the destination wanted {row['type']} and has no delivery of it",
    )


def _impossible(row: asyncpg.Record) -> Difference:
    return Difference(
        check=Check.DELIVERY,
        what=row["destination"],
        tenant_id=TenantId(""),
        where=f"message {row['message_id']}",
        expected=0,
        found=1,
        detail=f"{row['state']} after {row['attempt']} attempts, which cannot be",
    )
