"""Series of usage and what was unusual in them, in Postgres.

Guarantees: a series is locked from when it is lent until what was learned of it is stored, so that
of two processes one looks at an hour; an anomaly's row and its message are one transaction.
Refuses to know: what is unusual.

States are JSON: whole numbers of any size, which jsonb keeps exactly.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple
from typing import Final, TypeVar

import asyncpg

from tallygate.adapters.postgres import messages
from tallygate.adapters.postgres.messages import Message
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.anomaly import Basis, Finding, Fit, Series, Tally, Track, Used
from tallygate.domain.drift import spelled
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import HOUR_US
from tallygate.ports.anomaly import (
    Advanced,
    AnomalyBacklog,
    Discovered,
    Due,
    SeriesKey,
)

USAGE_ANOMALY: Final = "usage.anomaly"
HISTORY_PAGE: Final = 5_000

Sums = TypeVar("Sums", Tally, Fit)


class PostgresAnomalies:
    """The `AnomalyStore` and the `UsageHistory` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def discover(self, after: SeriesKey, count: int, from_us: int) -> Sequence[Discovered]:
        """Return the next tenants' meters that have usage, by tenant and meter."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("anomaly_discover"), *after, count, from_us)
        return [
            Discovered(_key(row), row["known"], row["first_us"], row["last_us"]) for row in rows
        ]

    async def begin(self, first_hours: Mapping[SeriesKey, int]) -> int:
        """Begin series that are not known, each with its first hour; return how many were not."""
        if not first_hours:
            return 0
        series = [(key, Series(hour)) for key, hour in first_hours.items()]
        async with self._postgres.connection() as connection:
            return len(await connection.fetch(query("anomaly_begin"), *_series_columns(series)))

    @asynccontextmanager
    async def due(
        self, until_hour: int, count: int, hours_max: int
    ) -> AsyncIterator["PostgresDueSeries"]:
        """Lend up to `count` series with hours before `until_hour`, `hours_max` of each."""
        async with self._postgres.connection() as connection, connection.transaction():
            rows = await connection.fetch(query("anomaly_due"), until_hour, count)
            series = {_key(row): _series(row["next_hour"], row["state"]) for row in rows}
            tenants, meters = _keys(series)
            seasons: dict[SeriesKey, dict[int, Track[Tally]]] = {key: {} for key in series}
            for row in await connection.fetch(query("anomaly_seasons"), tenants, meters):
                track = _track(Tally, json.loads(row["state"]))
                seasons[_key(row)][row["hour_of_week"]] = track
            usage: dict[SeriesKey, dict[int, Used]] = {key: {} for key in series}
            spans = [
                (
                    (each.next_hour - len(each.looked)) * HOUR_US,
                    min(until_hour, each.next_hour + hours_max) * HOUR_US,
                )
                for each in series.values()
            ]
            starts, ends = [span[0] for span in spans], [span[1] for span in spans]
            asked = (tenants, meters, starts, ends)
            for row in await connection.fetch(query("anomaly_usage"), *asked):
                hour = row["bucket_us"] // HOUR_US
                usage[_key(row)][hour] = Used(int(row["units"]), row["events"])
            due = [Due(key, each, seasons[key], usage[key]) for key, each in series.items()]
            yield PostgresDueSeries(connection, due)

    async def backlog(self) -> AnomalyBacklog:
        """Return how far behind the series are."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("anomaly_lag"))
        assert row is not None
        return AnomalyBacklog(row["series"], row["next_hour"] or 0)

    async def hours(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> AsyncIterator[tuple[MeterName, int, Used]]:
        """Iterate over the hours with usage, meter after meter, each in order."""
        async with self._postgres.connection() as connection, connection.transaction():
            asked = (tenant_id, meter, from_us, to_us)
            async for row in connection.cursor(
                query("anomaly_history"), *asked, prefetch=HISTORY_PAGE
            ):
                hour = row["bucket_us"] // HOUR_US
                yield MeterName(row["meter"]), hour, Used(int(row["units"]), row["events"])

    async def told(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> set[tuple[MeterName, int]]:
        """Return the hours, by number, that were noted as anomalies at the time."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("anomaly_told"), tenant_id, meter, from_us, to_us)
        return {(MeterName(row["meter"]), row["hour_us"] // HOUR_US) for row in rows}


class PostgresDueSeries:
    """The `DueSeries` port, over the transaction that holds their locks."""

    def __init__(self, connection: Lent, series: Sequence[Due]) -> None:
        self._connection = connection
        self.series = series

    async def save(self, advanced: Sequence[Advanced], tell_from_hour: int) -> int:
        """Keep what was learned, and note what was found; return how many anomalies are new."""
        kept = [each for each in advanced if not each.series.forgotten]
        gone = [each.key for each in advanced if each.series.forgotten]
        columns = _series_columns([(each.key, each.series) for each in kept])
        await self._connection.execute(query("anomaly_save"), *columns)
        seasons = sorted(
            (*each.key, place, json.dumps(_numbers(track)))
            for each in kept
            for place, track in each.changed.items()
        )
        if seasons:
            await self._connection.execute(query("anomaly_save_seasons"), *_columns(seasons))
        if gone:
            await self._connection.execute(query("anomaly_forget"), *_keys(gone))
        return await self._note(advanced, tell_from_hour)

    async def _note(self, advanced: Sequence[Advanced], tell_from_hour: int) -> int:
        found = [(each.key, finding) for each in advanced for finding in each.findings]
        if not found:
            return 0
        rows = await self._connection.fetch(
            query("anomaly_insert"), *_columns([_anomaly(*each) for each in found])
        )
        new = [found[row["place"] - 1] for row in rows]
        told = [message(*each) for each in new if each[1].hour >= tell_from_hour]
        await messages.write_wanted(self._connection, told)
        return len(new)


def message(key: SeriesKey, found: Finding) -> Message:
    """Return the message that tells of an anomaly."""
    expected = found.expected
    payload = {
        "type": USAGE_ANOMALY,
        "timestamp": spelled((found.hour + 1) * HOUR_US),
        "data": {
            "tenant_id": key.tenant_id,
            "meter": key.meter,
            "hour": spelled(found.hour * HOUR_US),
            "direction": found.direction.value,
            "basis": expected.basis.value,
            "used": found.used.units,
            "events": found.used.events,
            "expected": round(expected.mean),
            "usual_from": expected.low,
            "usual_to": expected.high,
            "deviations": str(found.score),
            "late": found.late,
        },
    }
    return Message("tenant", key.tenant_id, USAGE_ANOMALY, messages.as_json(payload).encode())


def _anomaly(key: SeriesKey, found: Finding) -> tuple[object, ...]:
    assert found.expected.basis is not Basis.WARMING
    return (
        *key,
        found.hour * HOUR_US,
        found.direction.value,
        found.expected.basis.value,
        found.used.units,
        found.used.events,
        round(found.expected.mean),
        found.expected.low,
        found.expected.high,
        found.score,
        found.late,
    )


def _series_columns(series: Sequence[tuple[SeriesKey, Series]]) -> tuple[list[object], ...]:
    if not series:
        return [], [], [], []
    return _columns(
        [
            (*key, each.next_hour, _state(each))
            for key, each in sorted(series, key=lambda each: each[0])
        ]
    )


def _columns(rows: Sequence[tuple[object, ...]]) -> tuple[list[object], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def _keys(keys: Iterable[SeriesKey]) -> tuple[list[str], list[str]]:
    known = list(keys)
    return [key.tenant_id for key in known], [key.meter for key in known]


def _key(row: asyncpg.Record) -> SeriesKey:
    return SeriesKey(TenantId(row["tenant_id"]), MeterName(row["meter"]))


def _state(series: Series) -> str:
    return json.dumps(
        {
            "looked": [[each.units, each.events] for each in series.looked],
            "rolling": _numbers(series.rolling),
            "fit": _numbers(series.fit),
            "level": _numbers(series.level),
        }
    )


def _series(next_hour: int, text: str) -> Series:
    state = json.loads(text)
    return Series(
        next_hour,
        tuple(Used(*each) for each in state["looked"]),
        _track(Tally, state["rolling"]),
        _track(Fit, state["fit"]),
        _track(Fit, state["level"]),
    )


def _numbers(track: Track[Tally] | Track[Fit]) -> list[object]:
    return [track.number, list(astuple(track.filling)), list(astuple(track.full))]


def _track(kind: type[Sums], numbers: tuple[int, list[int], list[int]]) -> Track[Sums]:
    number, filling, full = numbers
    return Track(number, kind(*filling), kind(*full))
