"""verdicts ─▶ [ reconcile repair ] ─▶ what was missing, appended; what is derived, made anew.

If we die here between two repairs, those before stand, and the next look finds the rest. Each is
found again only while it is missing, so that none is made twice.

Guarantees: what follows another step is left to that step's repair; what no command may decide is
left to people, and says what they can do. Nothing is edited.
Refuses to know: SQL, Redis, Stripe, and what found the drift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.drift import spelled
from tallygate.domain.reconcile import Pair, Reconciled, Repair, Step
from tallygate.domain.window import HOUR_US, NO_END_US, Window
from tallygate.flow.remake import KeepRollups
from tallygate.flow.replay import RecomputeAsked, recompute, redeliver
from tallygate.ports.audit import LedgerAudit
from tallygate.ports.recompute import RollupRecompute
from tallygate.ports.redeliver import MessageReplay, RedeliverAsked
from tallygate.ports.repair import Outcome, Repaired, StepRepair

# What verification calls events without a key, and keys without an event.
KEYS: Final = frozenset({"usage_event", "event_key"})
BY_HAND: Final[Mapping[Step, str]] = {
    Step.LEDGER: "tallygate verify names the events; bring them back from a backup or an archive",
    Step.COUNTER: "tallygate verify shows each counter",
    Step.ROLLUP: "tallygate replay rollups, once the ledger is whole",
    Step.DELIVERED: "the destination has more than the ledger: see who else tells it",
    Step.FROZEN: "a revision never changes: tallygate period verify, and ask us",
    Step.INTENTS: "tallygate stripe status",
    Step.SENT: "tallygate stripe status; tallygate stripe settle keeps what was done",
    Step.STRIPE: "somebody else tells Stripe: find out who, and credit the customer",
    Step.INVOICE: "tallygate invoice issue writes the next revision",
}


@dataclass(frozen=True, slots=True)
class Repairs:
    """What carries out the plan of a reconciliation, step by step."""

    steps: Mapping[Step, StepRepair]

    async def run(self, results: Sequence[Reconciled], *, apply: bool) -> list[Repaired]:
        """Carry out the repairs of what began at its step, or say what would be done."""
        found: list[Repaired] = []
        for each in results:
            for repair in each.repairs:
                if repair.follows is not None:
                    continue
                step = self.steps.get(repair.step)
                outcome, detail = Outcome.BY_HAND, BY_HAND[repair.step]
                if step is not None:
                    outcome, detail = await step.carry_out(each.pair, repair, apply=apply)
                found.append(Repaired(each.pair, repair, outcome, detail))
        return found


@dataclass(frozen=True, slots=True)
class RollupRepair:
    """The `StepRepair` of rollups, which are made anew from the events."""

    stores: Sequence[RollupRecompute]
    groups: KeepRollups
    ledger: LedgerAudit

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Make the period's rollups anew, where the ledger has all events that it has keys of."""
        if any(each.what in KEYS for each in await self.ledger.unnamed(pair.tenant_id)):
            return Outcome.BY_HAND, BY_HAND[Step.ROLLUP]
        period = pair.period
        if repair.name.startswith("groups"):
            hours = Window(
                period.start_us - period.start_us % HOUR_US, -(-period.end_us // HOUR_US) * HOUR_US
            )
            if not apply:
                return Outcome.WOULD, "the groups of the meter are made anew"
            steps = await self.groups.rebuild(pair.meter, hours)
            return Outcome.DONE, f"made anew in {steps} steps"
        asked = RecomputeAsked(period.start_us, period.end_us, pair.tenant_id, pair.meter, apply)
        found = await recompute(self.stores, asked, lambda _done, _total: None)
        if apply:
            return Outcome.DONE, f"{found.mended} buckets were made anew"
        return Outcome.WOULD, f"{found.different} buckets are made anew"


@dataclass(frozen=True, slots=True)
class DeliveredRepair:
    """The `StepRepair` of destinations: what they lack is told again, under its own ids."""

    messages: MessageReplay

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Have the messages since the period began sent again, once for this drift."""
        if repair.units < 0:
            return Outcome.BY_HAND, BY_HAND[Step.DELIVERED]
        named = f"repair {pair.tenant_id} {pair.meter} {spelled(pair.period.start_us)}"
        asked = RedeliverAsked(
            f"{named} {repair.units}",
            repair.name,
            pair.period.start_us,
            NO_END_US,
            "usage.batch",
        )
        counts, sent = await redeliver(
            self.messages, asked, apply=apply, progress=lambda _done, _total: None
        )
        if apply:
            return Outcome.DONE, f"{sent} messages are sent again"
        return Outcome.WOULD, f"{counts.again} messages are sent again"
