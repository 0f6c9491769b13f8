"""What happens in the month: usage and when it arrives, changes of plans, faults of Stripe's.

Guarantees: a seed tells the same story each time; an instant has one order.
Refuses to know: the product, but for the shape of its events.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import NO_CONTEXT, UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, PlanName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tallygate_fake_stripe import Fault, FaultKind
from tallygate_fake_stripe.errors import RateLimitReason
from tests.month.cast import (
    BEGIN_US,
    BYTES,
    CALLS,
    CAST,
    END_US,
    EXACT,
    FAR,
    HELD,
    MARCH_US,
    METERS,
    NEAR,
    PLANS,
    TOKENS,
    TRANSFERS,
    Member,
    instant,
)
from tests.usage_events import event

USED_UNTIL_US: Final = instant("2026-04-12")
EVENTS_PATH: Final = "/v1/billing/meter_events"
# No answer for 26 hours, and later, of the other account, for 36 days.
SILENT: Final = (instant("2026-03-10T06:00"), instant("2026-03-11T08:00"))
AWAY: Final = (instant("2026-03-20"), instant("2026-04-25"))
# Around the edge of what Stripe still takes of the other account then, nothing is used.
EDGE: Final = (AWAY[1] - 35 * DAY_US - 2 * HOUR_US, AWAY[1] - 35 * DAY_US + 26 * HOUR_US)
# Before the account goes away, all that was used before is told.
TOLD: Final = (AWAY[0] - 6 * HOUR_US, AWAY[0])
REOPENED: Final = {7: instant("2026-04-08T12:00"), 17: instant("2026-04-09T12:00")}
"""Who has its March opened again, and when."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event, and when it comes to the ledger."""

    at_us: int
    event: UsageEvent


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant changes its plan; without one, all plans' prices change."""

    at_us: int
    tenant_id: TenantId | None
    plan: PlanName | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault of an account's, from an instant on."""

    at_us: int
    account: str
    fault: Fault


RAISED: Final = "0.0401"
"""What the one amount that changes becomes, in the middle of the month."""
_MOVED: Final = (
    ("2026-03-04T00:00", 26, "scale"),
    ("2026-03-07T10:17:23.456789", 0, "scale"),
    ("2026-03-09T23:59:59.999999", 12, "overage"),
    ("2026-03-12T12:00", 2, "dinar"),
    ("2026-03-14T08:30", 19, "start"),
    ("2026-03-16T17:45:00.000001", 3, "dinar"),
    ("2026-03-20T03:00", 6, "card"),
    ("2026-03-24T21:21:21", 12, "start"),
    ("2026-03-27T06:00", 5, "overage"),
    ("2026-03-29T01:30", 1, "start"),
)
MOVES: Final = (
    *(Move(instant(at), TenantId(f"tenant-{n:02}"), PlanName(plan)) for at, n, plan in _MOVED),
    Move(instant("2026-03-18T09:00"), None, None),
)


def troubles() -> list[Trouble]:
    """Return all faults: one kind after the other, then both outages."""
    kinds: list[Fault] = [
        *(Fault(FaultKind.RATE_LIMITED, reason=reason) for reason in RateLimitReason),
        *(
            Fault(kind)
            for kind in (
                *(FaultKind.LOCK_TIMEOUT, FaultKind.CONFLICT, FaultKind.UNAVAILABLE),
                *(FaultKind.ERROR_BEFORE, FaultKind.ERROR_AFTER, FaultKind.GARBLED),
                *(FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER),
            )
        ),
        Fault(FaultKind.SLOW_BEFORE, delay_s=0.02),
        Fault(FaultKind.SLOW_AFTER, delay_s=0.02),
        Fault(FaultKind.ASYNC_ERROR),
    ]
    places = [2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    found = [
        Trouble(MARCH_US + day * DAY_US, NEAR, replace(fault, path=EVENTS_PATH, count=3))
        for day, fault in zip(places, kinds, strict=False)
    ]
    for kind, customers in ((FaultKind.DROP_AFTER, "cus_?[02468]"), (FaultKind.DROP_BEFORE, "*")):
        fault = Fault(kind, path=EVENTS_PATH, customer=customers, until_s=SILENT[1] / SECOND_US)
        found.append(Trouble(SILENT[0], NEAR, fault))
    until_s = AWAY[1] / SECOND_US
    away = (
        Fault(FaultKind.DROP_AFTER, path=EVENTS_PATH, count=2, until_s=until_s),
        Fault(FaultKind.DROP_BEFORE, path=EVENTS_PATH, count=2, until_s=until_s),
        Fault(FaultKind.UNAVAILABLE, until_s=until_s),
    )
    found += [Trouble(AWAY[0], FAR, fault) for fault in away]
    return sorted(found, key=lambda each: each.at_us)


def ticks() -> list[int]:
    """Return when everything that runs has a round, by time."""
    found = {*range(BEGIN_US, END_US + 1, 12 * HOUR_US)}
    found |= {*range(SILENT[0], SILENT[1] + 28 * HOUR_US, HOUR_US)}
    found |= {*range(AWAY[1], AWAY[1] + 2 * DAY_US, 2 * HOUR_US)}
    found |= {at for each in troubles() for at in (each.at_us, each.at_us + 6 * HOUR_US)}
    found |= {each.at_us for each in MOVES} | {*REOPENED.values()}
    return sorted(found)


def story(seed: int) -> list[Arrival]:
    """Return all usage of all tenants, in the order in which it arrives."""
    chance = random.Random(seed)
    found: list[Arrival] = []
    for member in CAST:
        found += _of_member(member, chance)
    found.sort(key=lambda each: (each.at_us, each.event.event_id))
    return [
        Arrival(each.at_us, replace(each.event, source_seq=number, received_at_us=each.at_us))
        for number, each in enumerate(found, 1)
    ]


def _meters(member: Member) -> list[MeterName]:
    """Return what a tenant uses: what its plans price, and what they do not."""
    moved = [each.plan for each in MOVES if each.tenant_id == member.name and each.plan]
    priced = {price.meter for name in (member.tenant.plan, *moved) for price in PLANS[name].prices}
    more = {CALLS, BYTES, *((TRANSFERS,) if member.number % 4 == 0 else ())}
    return sorted((priced | more | {EXACT}) - {MeterName("")})


def _of_member(member: Member, chance: random.Random) -> Iterator[Arrival]:
    number = 0
    for meter in _meters(member):
        for _ in range(chance.randint(12, 22)):
            at_us = _when(meter, chance)
            number += 1
            used = _event(member, meter, number, at_us, chance)
            late_us = _lateness(member, meter, at_us, chance)
            yield Arrival(at_us + late_us, used)
            if METERS[meter].aggregation is Aggregation.SUM and chance.random() < 0.12:
                number += 1
                back = replace(
                    used,
                    event_id=EventId(f"{member.name}-{number:04}"),
                    operation_id=OperationId(f"{member.name}-{number:04}"),
                    amount=-chance.randint(1, used.amount),
                    refund_of=used.event_id,
                )
                later_us = chance.choice((HOUR_US, 5 * HOUR_US, 3 * DAY_US))
                yield Arrival(at_us + late_us + later_us, back)


def _when(meter: MeterName, chance: random.Random) -> int:
    while True:
        from_us = MARCH_US if chance.random() < 0.8 else BEGIN_US + DAY_US
        until_us = USED_UNTIL_US if chance.random() < 0.3 else from_us + 31 * DAY_US
        at_us = chance.randrange(from_us, min(until_us, USED_UNTIL_US))
        if meter == TRANSFERS and (EDGE[0] <= at_us < EDGE[1] or TOLD[0] <= at_us < TOLD[1]):
            continue
        return at_us


def _lateness(member: Member, meter: MeterName, at_us: int, chance: random.Random) -> int:
    """Return how late an event comes: seconds, hours, or long after its period was closed."""
    drawn = chance.random()
    if drawn > 0.92:
        return chance.randrange(3 * DAY_US, 24 * DAY_US)
    if member.number in REOPENED and meter in (CALLS, BYTES) and drawn > 0.5:
        # What the period is opened again for.
        at_march = REOPENED[member.number] + HOUR_US - at_us
        return at_march if 0 < at_march < 38 * DAY_US else MINUTE_US
    if drawn > 0.8:
        return chance.randrange(HOUR_US, 20 * HOUR_US)
    return chance.randrange(SECOND_US, 10 * MINUTE_US)


def _event(
    member: Member, meter: MeterName, number: int, at_us: int, chance: random.Random
) -> UsageEvent:
    most = {BYTES: 90, TOKENS: 60, HELD: 9}.get(meter, 40)
    name = f"{member.name}-{number:04}"
    return event(
        number,
        event_id=EventId(name),
        operation_id=OperationId(name),
        tenant_id=member.name,
        meter=meter,
        amount=chance.randint(1, most),
        event_time_us=at_us,
        context=NO_CONTEXT,
        dimensions={
            "model": chance.choice(("large", "small")),
            "tier": chance.choice(("standard", "fast", "free")),
            "region": chance.choice(("eu", "us", "ap")),
        },
    )
