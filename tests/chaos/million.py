"""`make million`: made-up usage through the whole chain, every process killed again and again.

Owns sending, the kills, and the comparison with what was made. Guarantees that what is expected is
computed from the made usage alone. Refuses to know the product's arithmetic.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
import grpc
import yaml

from tallygate.gen.v1 import reason_pb2, usage_pb2
from tallygate.testing.webhook import ReceivedWebhook
from tests.chaos.book import now_us
from tests.chaos.callers import Line
from tests.chaos.installation import DESTINATION, SECRET_VARIABLE, Shape, installation
from tests.chaos.kept import keep_larger
from tests.chaos.made import METERS, UNITS_US, Made, Recipe, make
from tests.chaos.nemesis import Nemesis
from tests.chaos.rest import drained, quota_of
from tests.e2e.calls import LOST
from tests.servers import connection

BATCH: Final = 1_000
SENDERS: Final = 4
TIMEOUT_S: Final = 15.0
RETRY_S: Final = 0.2
DRAIN_S: Final = 600.0
LIMIT: Final = 2**52
TOO_OLD: Final = reason_pb2.REASON_EVENT_TIME_TOO_OLD

EVENTS: Final = """
select event_id, tenant_id, meter, amount, tallygate.microseconds(event_time)
from tallygate.usage_event
"""
BUCKETS: Final = """
select tenant_id, meter, tallygate.microseconds(bucket), count, sum, max, min
from tallygate.usage_{unit}
"""
LETTERS: Final = "select event_id from tallygate.dead_letter"

KILLS: Final[Mapping[str, int]] = {
    "kill serve": 3,
    "kill ingest": 3,
    "kill relay": 2,
    "kill control": 1,
    "redis killed": 1,
    "postgres killed": 1,
}
GAP_S: Final = (1.0, 6.0)
"""Between two kills: what was killed is up again for a while, or nothing would ever be done."""

SHAPE: Final = Shape(
    replica=False,
    disks=False,
    # A thousand events at once take Redis longer than the one call that these were made for.
    settings={
        "breaker_hang_ms": 3_000,
        "redis_timeout_ms": 6_000,
        "admit_queue_max": 20_000,
        "default_deadline_ms": 10_000,
        # As short as it may be: what comes again later is counted again, until the ledger says so.
        "operation_ttl_s": 60,
    },
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison: what it is of, what was expected, what was found, and how many differ."""

    what: str
    expected: int
    found: int
    differ: int


@dataclass(slots=True)
class Ran:
    """What a run came to."""

    made: Made
    lines: list[Compared] = field(default_factory=list)
    sent: int = 0
    replayed: int = 0
    retries: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    unexpected: Mapping[str, Sequence[int]] = field(default_factory=dict)
    send_s: float = 0.0
    drained_s: float | None = None
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def right(self) -> bool:
        """Whether everything is as it was expected."""
        fine = not any(each.differ for each in self.lines)
        return fine and self.drained_s is not None and not self.wrong and not self.unexpected


class Told(deque[ReceivedWebhook]):
    """Counts how often each event was told by distinct messages, and keeps no message."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.times = bytearray(events)
        self._messages: set[str] = set()

    def append(self, call: ReceivedWebhook) -> None:
        """Count what was taken, each message once."""
        if call.status >= 300 or call.message_id in self._messages:
            return
        self._messages.add(call.message_id)
        for event in json.loads(call.payload)["data"]["events"]:
            self.times[_number(event["event_id"])] += 1


def document(url: str) -> str:
    """Return the catalog: a limit on each meter that refuses nothing."""
    limits = [
        {"id": f"monthly-{meter}", "meter": meter, "kind": "window", "period": "month",
         "limit": LIMIT}
        for meter in METERS
    ]  # fmt: skip
    return yaml.safe_dump(
        {
            "version": 1,
            "default_plan": "open",
            "meters": {meter: {"aggregation": "sum"} for meter in METERS},
            "plans": {"open": {"limits": limits}},
            "destinations": {
                DESTINATION: {
                    "kind": "webhook", "url": url, "types": ["usage.batch"],
                    "secret": {"env": SECRET_VARIABLE},
                }
            },
        }
    )  # fmt: skip


async def run(folder: Path, recipe: Recipe, shape: Shape, *, kills_max: int = 10**6) -> Ran:
    """Send a recipe's usage while everything is killed, wait, and compare."""
    ran = Ran(make(recipe, now_us()))
    told = Told(recipe.events)
    async with installation(folder, shape, seed=recipe.seed, text=document) as place:
        place.receiver.received = told
        nemesis = Nemesis(
            place.ground, place.fleet, place.receiver, recipe.seed, KILLS, spares=False, gap_s=GAP_S
        )
        lines = [await place.line(name) for name in sorted(place.sockets)]
        batches = _batches(ran.made.sends)
        over = asyncio.Event()
        striking = asyncio.create_task(nemesis.run(over, strikes_max=kills_max))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(SENDERS):
                group.create_task(_send(ran, lines[number % len(lines)], batches))
        ran.send_s = time.monotonic() - began
        over.set()
        await striking
        await nemesis.heal()
        ran.drained_s = await drained(place, DRAIN_S)
        ran.kills, ran.unexpected = nemesis.counts, place.fleet.unexpected
        await _compare(ran, place.ground.near_dsn, lines[0], told)
    return ran


def _batches(sends: Sequence[int]) -> Iterator[Sequence[int]]:
    return (sends[start : start + BATCH] for start in range(0, len(sends), BATCH))


async def _send(ran: Ran, line: Line, batches: Iterator[Sequence[int]]) -> None:
    for numbers in batches:
        left = numbers
        while left:
            left = await _tell(ran, line, left)
            if left:
                ran.retries += 1
                await asyncio.sleep(RETRY_S)


async def _tell(ran: Ran, line: Line, numbers: Sequence[int]) -> list[int]:
    """Send a list; return the numbers that have to be sent again."""
    request = usage_pb2.BatchRecordUsageRequest(requests=[_request(ran.made, n) for n in numbers])
    try:
        reply = await line.usage.BatchRecordUsage(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() not in LOST:
            raise
        return [*numbers]
    again: list[int] = []
    for number, result in zip(numbers, reply.results, strict=True):
        if not result.HasField("error"):
            ran.sent += 1
            ran.replayed += result.response.replayed
            if number in ran.made.refused:
                ran.wrong["too late, and accepted"] += 1
        elif result.error.code in {code.value[0] for code in LOST}:
            again.append(number)
        elif number in ran.made.refused and result.error.reason == TOO_OLD:
            ran.sent += 1
        else:
            ran.wrong[f"{result.error.reason} {result.error.message}"] += 1
    return again


def _request(made: Made, number: int) -> usage_pb2.RecordUsageRequest:
    request = usage_pb2.RecordUsageRequest(
        tenant_id=made.tenants[number],
        meter=made.meters[number],
        amount=made.amounts[number],
        event_id=f"e-{number}",
    )
    request.event_time.FromMicroseconds(made.times_us[number])
    return request


def _number(event_id: str) -> int:
    return int(event_id.removeprefix("e-"))


async def _compare(ran: Ran, dsn: str, line: Line, told: Told) -> None:
    made = ran.made
    accepted = set(made.accepted())
    async with connection(dsn) as opened:
        ran.lines += await _ledger(opened, made, accepted)
        for unit in UNITS_US:
            rows = await opened.fetch(BUCKETS.format(unit=unit), timeout=DRAIN_S)
            found = {(r[0], r[1], r[2]): (r[3], int(r[4]), r[5], r[6]) for r in rows}
            wanted = made.buckets(unit)
            differ = sum(found.get(key) != value for key, value in wanted.items())
            differ += len(found.keys() - wanted.keys())
            ran.lines.append(Compared(f"buckets by {unit}", len(wanted), len(found), differ))
        letters = [_number(row[0]) for row in await opened.fetch(LETTERS)]
        differ = len(made.refused.symmetric_difference(letters))
        ran.lines.append(Compared("refused and kept", len(made.refused), len({*letters}), differ))
    wanted_units = made.counters()
    found_units = await _counters(line, {tenant for tenant, _ in wanted_units})
    differ = sum(found_units.get(key) != units for key, units in wanted_units.items())
    ran.lines.append(
        Compared("counters, units", sum(wanted_units.values()), sum(found_units.values()), differ)
    )
    differ = sum(told.times[n] != (n in accepted) for n in range(made.recipe.events))
    ran.lines.append(Compared("told to the destination", len(accepted), sum(told.times), differ))


async def _ledger(
    opened: "asyncpg.Connection[asyncpg.Record]", made: Made, accepted: set[int]
) -> list[Compared]:
    left, units, differ, rows = set(accepted), 0, 0, 0
    async with opened.transaction():
        async for row in opened.cursor(EVENTS, prefetch=10_000):
            number = _number(row[0])
            rows += 1
            units += row[3]
            left.discard(number)
            wanted = (made.tenants[number], made.meters[number], made.amounts[number])
            differ += (row[1], row[2], row[3]) != wanted or row[4] != made.times_us[number]
            differ += number not in accepted
    amount = sum(made.amounts[number] for number in accepted)
    return [
        Compared("events in the ledger", len(accepted), rows, differ + len(left)),
        Compared("units in the ledger", amount, units, abs(amount - units)),
    ]


async def _counters(line: Line, tenants: set[str]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for tenant in tenants:
        reply = await quota_of(line, tenant)
        found |= {(tenant, each.meter): each.used for each in reply.limits if each.used}
    return found


def table(ran: Ran) -> str:
    """Return the outcome as text."""
    recipe = ran.made.recipe
    made = (
        f"{recipe.events:,} events of {recipe.tenants} tenants, seed {recipe.seed}:"
        f" {len(ran.made.sends):,} sent in {ran.send_s:.0f} s"
        f" ({len(ran.made.sends) / max(ran.send_s, 0.001):,.0f}/s), {ran.replayed:,} known again,"
        f" {ran.retries} lists sent again"
    )
    kills = ", ".join(f"{name} {count}" for name, count in sorted(ran.kills.items()))
    head = f"{'':26}{'expected':>18}{'found':>18}{'differ':>8}"
    rows = [
        f"{each.what:26}{each.expected:>18,}{each.found:>18,}{each.differ:>8,}"
        for each in ran.lines
    ]
    lag = "never" if ran.drained_s is None else f"after {ran.drained_s:.1f} s"
    end = [
        f"nothing waits any more: {lag}",
        *(f"wrong: {n} {text}" for text, n in ran.wrong.items()),
    ]
    end += [f"{name} ended by itself: {codes}" for name, codes in ran.unexpected.items()]
    return "\n".join([made, f"struck: {kills}", head, *rows, *end])


def main() -> int:
    """Run it as the command line says; exit 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.million", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep it for docs/guarantees.md")
    given = parser.parse_args()
    recipe = Recipe(given.seed, given.events)
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="tallygate-million-") as folder:
        ran = asyncio.run(run(Path(folder), recipe, SHAPE))
    sys.stdout.write(table(ran) + "\n")
    if given.keep:
        keep_larger("make million", table(ran))
    return not ran.right


if __name__ == "__main__":
    sys.exit(main())
