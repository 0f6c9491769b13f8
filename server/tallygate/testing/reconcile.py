"""What is reconciled, and the results, in memory.

Guarantees: passes the same contract tests as reads and store in Postgres.
Refuses to know: what figures come to. A rollup is what events say, unless a test says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from tallygate.domain.drift import NOTHING, Figures
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.reconcile import Drift, Pair, Reconciled, Verdict
from tallygate.domain.window import Window
from tallygate.ports import Clock
from tallygate.ports.reconcile import PeriodAsked, PeriodUsage, RunPart, RunState, ToldUsage
from tallygate.testing.ledger import FakeLedger


class FakeReconcileReads:
    """The `ReconcileReads` port.

    `rollups` are figures that are not what the events say, by tenant and meter; `told` says of each
    destination which events' messages it has, and the state of their deliveries; `since_us` from
    when on it had to be told. `archives` are months whose events were dropped, with what those came
    to.
    """

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger
        self.rollups: dict[tuple[TenantId, MeterName], Figures] = {}
        self.told_events: dict[str, dict[EventId, str]] = {}
        self.since_us: dict[str, int] = {}
        self.archives: dict[Window, dict[tuple[TenantId, MeterName], Figures]] = {}

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        self.ledger.answer()
        found = {each.tenant_id for each in self.ledger.events.values()}
        return sorted(each for each in found if each > after)[:count]

    async def usage(self, asked: Sequence[PeriodAsked]) -> Sequence[PeriodUsage]:
        """Return the usage of each period, by meter; none where there was none."""
        self.ledger.answer()
        found = []
        for number, ask in enumerate(asked):
            whole, cut = _archived(self.archives, ask)
            events = self._events(ask)
            for meter in sorted(events.keys() | whole.keys()):
                figures = _merged(_figures(events.get(meter, ())), whole.get(meter, NOTHING))
                rollup = self.rollups.get((ask.tenant.tenant_id, meter), figures)
                found.append(PeriodUsage(number, meter, figures, rollup, archived=cut))
        return found

    async def dropped(self) -> Sequence[Window]:
        """Return the months whose events are in their archives alone, by time."""
        return sorted(self.archives, key=lambda each: each.start_us)

    async def told(self, asked: Sequence[PeriodAsked]) -> Sequence[ToldUsage]:
        """Return what each destination that wants usage was told of these periods."""
        return [
            self._told(number, meter, name, events)
            for number, ask in enumerate(asked)
            for meter, events in sorted(self._events(ask).items())
            for name in sorted({*self.since_us, *self.told_events})
        ]

    def _told(
        self, number: int, meter: MeterName, name: str, events: Sequence[UsageEvent]
    ) -> ToldUsage:
        states = self.told_events.get(name, {})
        since_us = self.since_us.get(name)
        told = [each for each in events if each.event_id in states]
        return ToldUsage(
            ask=number,
            meter=meter,
            destination=name,
            told=sum(each.amount for each in told),
            delivered=sum(each.amount for each in told if states[each.event_id] == "delivered"),
            parked=sum(each.amount for each in told if states[each.event_id] == "parked"),
            ledger=sum(each.amount for each in events),
            aside=sum(
                each.amount
                for each in events
                if each.event_id not in states
                and (since_us is None or each.received_at_us < since_us)
            ),
        )

    def _events(self, ask: PeriodAsked) -> Mapping[MeterName, list[UsageEvent]]:
        found: dict[MeterName, list[UsageEvent]] = {}
        for event in self.ledger.events.values():
            if event.tenant_id == ask.tenant.tenant_id and ask.period.holds(event.event_time_us):
                found.setdefault(event.meter, []).append(event)
        return found


class FakeReconcileStore:
    """The `ReconcileStore` port. `messages` are the drifts that were told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.runs: dict[str, RunState] = {}
        self.results: dict[str, list[Reconciled]] = {}
        self.known: set[tuple[Pair, Drift]] = set()
        self.messages: list[tuple[Pair, Drift]] = []

    async def begin(self, run_id: str) -> RunState:
        """Begin a run, or find how far it has come."""
        return self.runs.setdefault(run_id, RunState(run_id))

    async def add(self, part: RunPart) -> int | None:
        """Store a part; return how many drifts are new, None where another has stored it."""
        run = self.runs[part.run_id]
        if run.after != part.after or run.finished_us:
            return None
        verdicts = [each.verdict for each in part.results]
        self.runs[part.run_id] = replace(
            run,
            after=part.until,
            pairs=run.pairs + len(verdicts),
            exact=run.exact + verdicts.count(Verdict.EXACT),
            drifting=run.drifting + verdicts.count(Verdict.DRIFT),
            finished_us=self._clock.now_us() if part.last else 0,
        )
        self.results.setdefault(part.run_id, []).extend(part.results)
        new = 0
        for each in part.results:
            for drift in each.found:
                if (each.pair, drift) not in self.known:
                    self.known.add((each.pair, drift))
                    self.messages.append((each.pair, drift))
                    new += 1
        return new

    async def newest(self) -> RunState | None:
        """Return the daily run that was finished last."""
        daily = [each for each in self.runs.values() if each.run_id.startswith("daily-")]
        finished = [each for each in daily if each.finished_us]
        return max(finished, key=lambda each: each.finished_us, default=None)

    async def verdicts(self, run_id: str) -> dict[str, int]:
        """Return how many pairs of a run came to each verdict."""
        found: dict[str, int] = {}
        for each in self.results.get(run_id, ()):
            found[each.verdict.value] = found.get(each.verdict.value, 0) + 1
        return found

    async def drift_units(self, run_id: str) -> dict[str, Decimal]:
        """Return the units that a run found off, too many and too few added up, by step."""
        found: dict[str, Decimal] = {}
        for each in self.results.get(run_id, ()):
            for drift in each.found:
                step = drift.step.value
                found[step] = found.get(step, Decimal(0)) + abs(drift.units)
        return found


def _archived(
    archives: Mapping[Window, Mapping[tuple[TenantId, MeterName], Figures]], ask: PeriodAsked
) -> tuple[dict[MeterName, Figures], bool]:
    """Return what whole months of a period came to, and whether a part of another is archived."""
    period, found, cut = ask.period, dict[MeterName, Figures](), False
    for month, usage in archives.items():
        if month.start_us >= period.end_us or month.end_us <= period.start_us:
            continue
        if month.start_us < period.start_us or month.end_us > period.end_us:
            cut = True
            continue
        for (tenant_id, meter), figures in usage.items():
            if tenant_id == ask.tenant.tenant_id:
                found[meter] = _merged(found.get(meter, NOTHING), figures)
    return found, cut


def _merged(one: Figures, other: Figures) -> Figures:
    used = [each for each in (one, other) if each.count]
    return Figures(
        one.count + other.count,
        one.sum + other.sum,
        max((each.max for each in used), default=0),
        min((each.min for each in used), default=0),
    )


def _figures(events: Sequence[UsageEvent]) -> Figures:
    used = [each.amount for each in events if each.amount > 0]
    total = sum(each.amount for each in events)
    return Figures(len(used), total, max(used, default=0), min(used, default=0))
