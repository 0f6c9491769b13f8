"""What the oracle is shown of a run: rows, counters, numbers and messages as they lie.

Owns the reading of the models. Guarantees: counters are read as a caller reads them. Refuses to
judge.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tallygate.domain.catalog import Limit, OnExceed
from tallygate.domain.decision import WindowRule
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import AccountId, TenantId
from tallygate.domain.limit import charge
from tallygate.domain.request import QuotaRequest, QuotaResult
from tallygate.domain.window import Calendar
from tests.oracle.facts import Answer, Call, Counter, Kind, Lane, Message, Row
from tests.sim.parts import Flows, Sidecar, World
from tests.sim.workload import TENANTS

READ_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Moment:
    """When counters are read, by Redis' clock; and from when to when copies of it lagged."""

    now_us: int
    losses: tuple[tuple[int, int], ...] = ()


async def _quota(request: QuotaRequest, flows: Flows) -> QuotaResult:
    return await flows.admit.quota(request)


def rows(world: World) -> Iterator[Row]:
    """Iterate over the ledger."""
    for event in world.database.ledger.events.values():
        yield _row(event)


async def counters(
    sidecar: Sidecar, limits: Sequence[Limit], calls: Sequence[Call], at: "Moment"
) -> AsyncIterator[Counter]:
    """Iterate over every counter of every tenant, as `GetQuota` shows it."""
    now_us, losses = at.now_us, at.losses
    by_name = {str(limit.limit_id): limit for limit in limits}
    for name in TENANTS:
        request = QuotaRequest(TenantId(name))
        try:
            result = await sidecar.ask(partial(_quota, request), READ_TIMEOUT_S)
        except BackendUnavailable:
            # It never came to rest, which the oracle tells of by itself.
            return
        for reading in result.readings:
            if reading.account != name:
                continue
            limit = by_name[reading.limit_id]
            rule = charge(limit, AccountId(name), Calendar(), 0, now_us).rule
            assert isinstance(rule, WindowRule)
            yield Counter(
                account=name,
                limit_id=limit.limit_id,
                meter=limit.meter,
                family=family(name),
                starts_us=rule.starts_us,
                ends_us=rule.turns_us,
                used=reading.used,
                limit=limit.limit if limit.on_exceed is OnExceed.REFUSE else None,
                allowance=_lost(calls, limit.meter, family(name), losses)
                + (_degraded(calls, limit.meter, family(name)) if limit.local_budget else 0),
            )


def lanes(world: World, *, lost: bool = False) -> Iterator[Lane]:
    """Iterate over the numbers that were given out, and what became of them.

    With `lost`, those that are missing are known to be lost, by the faults that there were.
    """
    numbers = world.database.ledger.numbers
    for (source, lane), accepted in world.state.given_out.items():
        stored = numbers.get((source, lane), set())
        # A range that was handed in may be lost with Redis in its turn, before the ledger has it:
        # its events come under newer numbers all the same, and the older ones stay a known gap.
        gone = len(world.state.handed_in[source, lane] - stored)
        missing = sorted(set(range(1, max(stored, default=0) + 1)) - stored)
        yield Lane(
            source=source,
            lane=lane,
            accepted=accepted,
            persisted=len(stored),
            lost=max(0, accepted - len(stored)) if lost else gone,
            gaps=tuple((each, each) for each in missing),
        )


def wanted(world: World) -> Iterator[Message]:
    """Iterate over the outbox."""
    for row in world.database.outbox.rows:
        yield Message(row.message_id, row.destination, _pairs(row.payload), row.payload)


def taken(world: World) -> Iterator[Message]:
    """Iterate over what destinations took, each time that they did."""
    for destination in world.destinations:
        for each in destination.taken:
            pairs = _pairs(each.payload)
            yield Message(each.message_id, each.destination, pairs, each.payload)


def family(name: str) -> frozenset[str]:
    """Return a tenant and those below it."""
    return frozenset({name, *(each for each, parent in TENANTS.items() if parent == name)})


def _lost(
    calls: Sequence[Call], meter: str, of: frozenset[str], losses: Sequence[tuple[int, int]]
) -> int:
    """Return the units that a copy of Redis did not know of when it took over.

    By so much a limit may be passed until that is noticed: documented, and counted afterwards.
    """
    units = {
        (call.tenant, call.operation): sum(each for asked, each in call.units if asked == meter)
        for call in calls
        if call.tenant in of
        and call.gated
        and any(call.sent_us <= until and copied <= call.ended_us for copied, until in losses)
    }
    return sum(units.values())


def _degraded(calls: Sequence[Call], meter: str, of: frozenset[str]) -> int:
    """Return the units that were granted without Redis, or may have been, unheard."""
    units: dict[tuple[str, str], int] = {}
    heard: set[tuple[str, str]] = set()
    for call in calls:
        key = (call.tenant, call.operation)
        if call.kind is Kind.CONSUME and call.tenant in of:
            if call.degraded or call.answer is Answer.OPEN:
                units[key] = sum(amount for asked, amount in call.units if asked == meter)
            elif call.answer is Answer.GRANTED and not call.replayed:
                heard.add(key)
    return sum(amount for key, amount in units.items() if key not in heard)


def _row(event: UsageEvent) -> Row:
    return Row(
        tenant=event.tenant_id,
        event=event.event_id,
        meter=event.meter,
        amount=event.amount,
        event_time_us=event.event_time_us,
        received_us=event.received_at_us,
        operation=event.operation_id,
        source=event.source_id,
        lane=event.source_lane,
        seq=event.source_seq,
        epoch=event.counter_epoch,
        refund_of=event.refund_of,
        dimensions=event.dimensions,
    )


def _pairs(payload: bytes) -> tuple[tuple[str, str], ...]:
    return tuple((tenant, event) for tenant, event in json.loads(payload))
