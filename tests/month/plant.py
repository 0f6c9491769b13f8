"""Errors that are planted after the month, one at each step, and taken back.

Guarantees: a plant is one unit, or one send, at one place, and nothing is left of it afterwards.
Refuses to know what finds it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallygate.domain.invoice import LineKind
from tallygate.domain.reconcile import Figure, Reconciled, Remedy, Step, Verdict
from tests.month.cast import BYTES, METERS
from tests.month.play import Key, Outcome
from tests.month.world import MonthWorld
from tests.servers import connection

_OF: Final = (
    " where tenant_id = '{tenant}' and meter = '{meter}'"
    " and {column} >= tallygate.instant({start}) and {column} < tallygate.instant({end})"
)
_SEND: Final = (
    "(select min(intent_id) from tallygate.stripe_intent where tenant_id = '{tenant}'"
    " and meter = '{meter}' and period_start = tallygate.instant({start}) and kind = 'delta')"
)


@dataclass(frozen=True, slots=True)
class Plant:
    """One unit too many at a step, how it is put there and taken back, and what makes it whole."""

    step: Step
    statement: str
    remedy: Remedy


PLANTS: Final = (
    Plant(
        Step.ROLLUP,
        "update tallygate.usage_minute set sum = sum {sign} 1 where (tenant_id, meter, bucket) ="
        " (select tenant_id, meter, bucket from tallygate.usage_minute"
        + _OF.replace("{column}", "bucket")
        + " order by bucket limit 1)",
        Remedy.ROLLUP_RECOMPUTE,
    ),
    Plant(
        Step.FROZEN,
        "update tallygate.period_total set sum = sum {sign} 1 where tenant_id = '{tenant}'"
        " and meter = '{meter}' and start_at = tallygate.instant({start})"
        " and revision = {sealed}",
        Remedy.PERIOD_CORRECTION,
    ),
    Plant(
        Step.INTENTS,
        "update tallygate.stripe_intent set quantity = quantity {sign} 1 where intent_id = "
        + _SEND,
        Remedy.INTENT,
    ),
    Plant(
        Step.INVOICE,
        "update tallygate.invoice set lines = jsonb_set(lines, array['{line}', 'quantity'],"
        " to_jsonb(((lines -> {line} ->> 'quantity')::numeric {sign} 1)::text))"
        " where tenant_id = '{tenant}' and period_start = tallygate.instant({start})"
        " and revision = {revision}",
        Remedy.ADJUSTMENT,
    ),
)
# What Stripe took, noted as refused: all of its units are missing.
REFUSED: Final = f"update tallygate.stripe_send set state = '{{state}}' where intent_id = {_SEND}"
# An event that says more than it did when its period was hashed.
TAMPERED: Final = (
    "update tallygate.usage_event set amount = amount {sign} 1 where event_id ="
    " (select min(event_id) from tallygate.usage_event"
    + _OF.replace("{column}", "event_time")
    + ")"
)


def planted_of(found: Outcome) -> Key:
    """Return a tenant and a period of which every step has the same units of bytes."""
    whole = {*Step} - {Step.COUNTER, Step.DELIVERED}
    for (tenant_id, meter, start_us), result in sorted(found.reconciled.items()):
        steps = {each.step for each in result.readings if isinstance(each.figure, Figure)}
        if meter != BYTES or result.verdict is not Verdict.EXACT or not whole <= steps:
            continue
        kinds = {
            each.kind
            for each in found.told
            if (each.tenant_id, each.meter, each.start_us) == (tenant_id, meter, start_us)
            and each.state == "delivered"
        }
        if kinds == {"delta"}:
            return tenant_id, start_us
    raise AssertionError("nobody's bytes went through every step")


@dataclass(frozen=True, slots=True)
class Bed:
    """Where errors are planted: one tenant's bytes in one period."""

    world: MonthWorld
    found: Outcome
    key: Key

    async def look(self) -> Reconciled:
        """Reconcile that pair."""
        results = await self.world.reconcile([self.found.periods[self.key]])
        (mine,) = [each for each in results if each.pair.meter == BYTES]
        return mine

    @asynccontextmanager
    async def planted(self, statement: str) -> AsyncIterator[None]:
        """Have one unit more for the length of a block."""
        await self.edit(statement, "+")
        try:
            yield
        finally:
            await self.edit(statement, "-")

    async def edit(self, statement: str, sign: str = "", state: str = "") -> None:
        """Do to a table what nobody may."""
        period = self.found.periods[self.key]
        newest = self.found.invoices[self.key][-1]
        priced = [
            place
            for place, each in enumerate(newest.invoice.lines)
            if each.kind is LineKind.USAGE
            and each.selection is not None
            and each.selection.meter == BYTES
        ]
        made = statement.format(
            tenant=self.key[0],
            meter=BYTES,
            start=period.start_us,
            end=period.end_us,
            line=priced[0],
            revision=newest.revision,
            sealed=period.revision,
            sign=sign,
            state=state,
        )
        async with connection(self.world.dsn) as admin:
            await admin.execute("set session_replication_role = replica")
            done = await admin.execute(made)
        assert done == "UPDATE 1", made

    def tell(self, units: int) -> None:
        """Have Stripe count so many units more of one event than it was told."""
        sync = METERS[BYTES].stripe
        assert sync is not None
        mine = {
            each.identifier
            for each in self.found.told
            if (each.tenant_id, each.meter, each.start_us) == (self.key[0], BYTES, self.key[1])
            and (each.kind, each.state) == ("delta", "delivered")
        }
        stripe = self.world.accounts[sync.destination].stripe
        event = next(each for each in stripe.meter_events() if each.identifier in mine)
        event.value += units * Decimal(sync.scale)
