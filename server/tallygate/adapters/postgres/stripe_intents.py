"""Intents for Stripe in Postgres: what is missing of them, and how they are written.

Guarantees: gaps are read in one statement, so as of one instant; of planners that find the same
gap, one writes.
Refuses to know: why a window is asked about, and how intents are sent.
"""

import json
from collections.abc import Mapping, Sequence

import asyncpg

from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import Intent, IntentId, IntentKind, IntentPlace, WindowGap
from tallygate.domain.window import Window
from tallygate.ports.stripe_store import GapQuery


class PostgresStripeIntents:
    """The `StripeIntents` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def gaps(self, query_: GapQuery) -> list[WindowGap]:
        """Return windows whose usage is not what is intended of them, earliest first."""
        cuts = query_.cuts
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_gaps"),
                query_.destination,
                query_.meter,
                [cut.tenant_id for cut in cuts],
                [cut.customer for cut in cuts],
                [cut.period_start_us for cut in cuts],
                [cut.period_end_us for cut in cuts],
                [cut.from_us for cut in cuts],
                [cut.to_us for cut in cuts],
                query_.source.value,
                query_.window_us,
                query_.measure.value,
                query_.settled_us,
                [key for key, _ in query_.dimensions],
                [name for _, name in query_.dimensions],
                query_.latest,
                query_.cancel_after_us,
                query_.limit,
                query_.late_since_us,
            )
        return [_gap(row, query_.meter) for row in rows]

    async def chains(
        self, tenants: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the billing periods that tenants have between two instants, in order."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("stripe_periods"), list(tenants), from_us, to_us)
        found: dict[TenantId, list[Window]] = {}
        for row in rows:
            window = Window(row["start_us"], row["end_us"])
            found.setdefault(TenantId(row["tenant_id"]), []).append(window)
        return found

    async def intend(
        self, intents: Sequence[Intent], now_us: int, *, shadow: bool = False
    ) -> Sequence[str]:
        """Write intents, to be sent from `now_us` on; return the identifiers of those new."""
        async with self._postgres.connection() as connection:
            return await write_intents(connection, intents, now_us, shadow=shadow)

    async def items(
        self, destination: str, places: Sequence[IntentPlace]
    ) -> Mapping[tuple[TenantId, str], str]:
        """Return the identifiers of items that are intended, by tenant and dimensions."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_items"),
                destination,
                [place.tenant_id for place in places],
                [place.meter for place in places],
                [place.dimensions for place in places],
            )
        return {(TenantId(row["tenant_id"]), row["dimensions"]): row["identifier"] for row in rows}


async def write_intents(
    connection: "Lent", intents: Sequence[Intent], now_us: int, *, shadow: bool = False
) -> list[str]:
    """Write intents with their sends; return the identifiers of those new."""
    # In one order, so that planners that write the same rows do not wait for each other in turn.
    ordered = sorted(intents, key=lambda each: each.identifier)
    places = [each.place for each in ordered]
    rows = await connection.fetch(
        query("stripe_intend"),
        [each.destination for each in ordered],
        [place.tenant_id for place in places],
        [place.customer for place in places],
        [place.meter for place in places],
        [place.dimensions for place in places],
        [place.start_us for place in places],
        [place.end_us for place in places],
        [place.period_start_us for place in places],
        [place.period_end_us for place in places],
        [each.seq for each in ordered],
        [each.kind.value for each in ordered],
        [each.quantity for each in ordered],
        [each.value for each in ordered],
        [each.event_name for each in ordered],
        [each.timestamp_us for each in ordered],
        [each.identifier for each in ordered],
        [each.idempotency_key for each in ordered],
        [each.replaces for each in ordered],
        [each.cancels for each in ordered],
        [json.dumps(dict(each.details), sort_keys=True) for each in ordered],
        now_us,
        "shadow" if shadow else "pending",
        [each.closed_start_us for each in ordered],
    )
    return [row["identifier"] for row in rows]


def intent_of(row: asyncpg.Record) -> Intent:
    """Return the intent that a row holds."""
    return Intent(
        destination=row["destination"],
        place=_place(row, MeterName(row["meter"])),
        seq=row["seq"],
        kind=IntentKind(row["kind"]),
        quantity=int(row["quantity"]),
        value=row["value"],
        event_name=row["event_name"],
        timestamp_us=row["timestamp_us"],
        identifier=row["identifier"],
        idempotency_key=row["idempotency_key"],
        replaces=_number(row["replaces"]),
        cancels=_number(row["cancels"]),
        details={} if row["details"] == "{}" else json.loads(row["details"]),
        closed_start_us=row["closed_start_us"],
    )


def _gap(row: asyncpg.Record, meter: MeterName) -> WindowGap:
    return WindowGap(
        place=_place(row, meter),
        total=int(row["quantity"]),
        intended=int(row["intended"]),
        seq=row["seq"],
        cancellable=_number(row["cancellable"]),
        closed_start_us=row["closed_start_us"],
    )


def _place(row: asyncpg.Record, meter: MeterName) -> IntentPlace:
    return IntentPlace(
        tenant_id=TenantId(row["tenant_id"]),
        customer=row["customer"],
        meter=meter,
        dimensions=row["dimensions"],
        start_us=row["start_us"],
        end_us=row["end_us"],
        period_start_us=row["period_start_us"],
        period_end_us=row["period_end_us"],
    )


def _number(value: int | None) -> IntentId | None:
    return None if value is None else IntentId(value)
