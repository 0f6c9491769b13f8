"""Callers of the simulator: they ask, keep at it with the same id, and write down what they heard.

Owns what is asked, and the record of it. Guarantees: each try is one `Call` of the history, before
and after. Refuses to know faults.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from tallygate.domain.decision import LimitReading
from tallygate.domain.errors import BackendUnavailable, DeadlineTooShort, Overloaded, TallygateError
from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId
from tallygate.domain.request import (
    CommitRequest,
    ConsumeRequest,
    ConsumeResult,
    Durability,
    Item,
    RecordResult,
    RefundRequest,
    RefundResult,
    ReleaseRequest,
    ReserveRequest,
    ReserveResult,
    Resolution,
    ResolveResult,
    UsageRequest,
)
from tests.oracle.facts import Answer, Call, Held, Kind
from tests.sim.loop import SimClock
from tests.sim.parts import Flows, Sidecar

ResultT = TypeVar("ResultT")

DEADLINE_S: Final = 1.0
TRIES_MAX: Final = 200
OPEN: Final = (BackendUnavailable, Overloaded, DeadlineTooShort)


@dataclass(frozen=True, slots=True)
class Ask:
    """One logical call. `what` says it to a sidecar's flows; `read` reads the answer."""

    kind: Kind
    tenant: str
    operation: str
    units: tuple[tuple[str, int], ...]
    what: Callable[[Flows], Awaitable[Any]]
    gated: bool = True


@dataclass(slots=True)
class Caller:
    """Asks the sidecars, and keeps the record."""

    clock: SimClock
    chance: random.Random
    sidecars: Sequence[Sidecar]
    record: list[Call] = field(default_factory=list)

    async def insist(self, ask: Ask, sidecar: Sidecar) -> Call:
        """Ask until the answer is not left open, most often the same sidecar."""
        call = await self.once(ask, sidecar)
        for _ in range(TRIES_MAX):
            if call.answer is not Answer.OPEN:
                break
            await asyncio.sleep(self.chance.uniform(0.05, 0.4))
            if self.chance.random() < 0.2:
                sidecar = self.chance.choice(self.sidecars)
            call = await self.once(ask, sidecar)
        return call

    async def once(self, ask: Ask, sidecar: Sidecar) -> Call:
        """Ask once, and write down what came of it."""
        sent_us = self.clock.now_us()
        call = Call(
            kind=ask.kind,
            tenant=ask.tenant,
            operation=ask.operation,
            sidecar=sidecar.name,
            sent_us=sent_us,
            ended_us=sent_us,
            answer=Answer.OPEN,
            units=ask.units,
            gated=ask.gated,
        )
        try:
            result = await sidecar.ask(ask.what, DEADLINE_S)
        except (ConnectionError, TimeoutError) as error:
            call = replace(call, text=type(error).__name__)
        except OPEN as error:
            call = replace(call, text=str(error))
        except TallygateError as error:
            call = replace(call, answer=Answer.FAILED, text=f"{type(error).__name__} {error}")
        else:
            call = _heard(call, result)
        call = replace(call, ended_us=self.clock.now_us())
        self.record.append(call)
        return call


def consume(tenant: str, operation: str, items: Sequence[tuple[str, int]]) -> Ask:
    """Return a charge."""
    request = ConsumeRequest(
        TenantId(tenant),
        tuple(Item(MeterName(meter), amount) for meter, amount in items),
        OperationId(operation),
    )

    async def what(flows: Flows) -> ConsumeResult:
        (result,) = await flows.admit.consume([request])
        return raised(result)

    return Ask(Kind.CONSUME, tenant, operation, tuple(items), what)


def record(tenant: str, operation: str, meter: str, amount: int, at_us: int = 0) -> Ask:
    """Return usage to record."""
    request = UsageRequest(
        TenantId(tenant),
        MeterName(meter),
        amount,
        EventId(operation),
        OperationId(operation),
        event_time_us=at_us,
    )

    async def what(flows: Flows) -> RecordResult:
        (result,) = await flows.admit.record([request])
        return raised(result)

    return Ask(Kind.RECORD, tenant, operation, ((meter, amount),), what, gated=False)


def reserve(tenant: str, operation: str, meter: str, amount: int, ttl_us: int) -> Ask:
    """Return a reservation."""
    items = (Item(MeterName(meter), amount),)
    request = ReserveRequest(TenantId(tenant), items, OperationId(operation), ttl_us)
    units = ((meter, amount),)
    return Ask(Kind.RESERVE, tenant, operation, units, lambda flows: flows.reserve.reserve(request))


def commit(tenant: str, operation: str, reservation: str, units: tuple[str, int]) -> Ask:
    """Return a settlement with that many units used."""
    request = CommitRequest(
        TenantId(tenant),
        reservation,  # type: ignore[arg-type]  # as the reply had it
        OperationId(operation),
        (units[1],),
    )
    return Ask(
        Kind.COMMIT, tenant, operation, (units,), lambda flows: flows.reserve.commit(request)
    )


def release(tenant: str, operation: str, reservation: str) -> Ask:
    """Return a reservation given back."""
    request = ReleaseRequest(
        TenantId(tenant),
        reservation,  # type: ignore[arg-type]  # as the reply had it
        OperationId(operation),
    )
    return Ask(Kind.RELEASE, tenant, operation, (), lambda flows: flows.reserve.release(request))


def refund(tenant: str, operation: str, event: str, amount: int) -> Ask:
    """Return a refund of so many units of an event."""
    request = RefundRequest(TenantId(tenant), EventId(event), OperationId(operation), amount)
    return Ask(Kind.REFUND, tenant, operation, (), lambda flows: flows.refunds.refund(request))


def raised(result: ResultT | TallygateError) -> ResultT:
    """Return a result. Raises the error that stands in its place."""
    if isinstance(result, TallygateError):
        raise result
    return result


def _heard(call: Call, result: Any) -> Call:
    call = replace(call, text=repr(result))
    match result:
        case ConsumeResult(decision, events, durability):
            return replace(
                call,
                answer=Answer.GRANTED if decision.allowed else Answer.REFUSED,
                events=tuple(events),
                held=_held(durability),
                replayed=decision.replayed,
                degraded=decision.degraded,
                decision=_told(decision.readings),
                accounts=_accounts(decision.readings),
            )
        case RecordResult(event, replayed, durability, degraded):
            return replace(
                call,
                answer=Answer.GRANTED,
                events=(event,),
                held=_held(durability),
                replayed=replayed,
                degraded=degraded,
            )
        case ReserveResult(decision, reservation, expires_us):
            return replace(
                call,
                answer=Answer.GRANTED if decision.allowed else Answer.REFUSED,
                replayed=decision.replayed,
                decision=f"{reservation} until {expires_us}" if decision.allowed else "",
                accounts=_accounts(decision.readings),
            )
        case ResolveResult():
            done = (Resolution.COMMITTED, Resolution.COMMITTED_PARTIALLY, Resolution.RELEASED)
            return replace(
                call,
                answer=Answer.GRANTED if result.resolution in done else Answer.CLOSED,
                events=tuple(result.event_ids),
                held=_held(result.durability),
                replayed=result.replayed,
                decision=result.resolution,
                accounts=_accounts(result.readings),
            )
        case RefundResult():
            return replace(
                call,
                answer=Answer.GRANTED,
                events=(result.event_id,),
                held=_held(result.durability),
                replayed=result.replayed,
                decision=str(result.amount),
                accounts=_accounts(result.readings),
            )
    raise AssertionError(f"nobody answers so: {result!r}")


def _held(durability: Durability) -> Held:
    return Held("" if durability is Durability.UNSPECIFIED else durability.name)


def _told(readings: Sequence[LimitReading]) -> str:
    return "; ".join(f"{each.limit_id} {each.state} {each.used}/{each.limit}" for each in readings)


def _accounts(readings: Sequence[LimitReading]) -> tuple[str, ...]:
    return tuple(str(each.account) for each in readings)
