"""Sends to Stripe in Postgres: lanes are leased, and finished only under the lease they were under.

Guarantees: two relays never hold one customer's meter at once; a relay that comes back after its
lease was taken over changes nothing; what replaces a send is written with the note that ends it.
Refuses to know: how intents are sent, and when to give up.
"""

import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal

import asyncpg

from tallygate.adapters.postgres.pool import Contended, Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.stripe_intents import intent_of, write_intents
from tallygate.domain.ids import MeterName
from tallygate.domain.stripe_intent import Intent, IntentId, SendState
from tallygate.domain.window import Window
from tallygate.ports.stripe_store import (
    Claim,
    Claimed,
    LeftSend,
    PeriodSend,
    ReportedError,
    ReportNoted,
    SendResult,
    StripeDepth,
)

OPEN = frozenset({SendState.PENDING, SendState.AMBIGUOUS})


class PostgresStripeSends:
    """The `StripeSends` and the `StripeUpkeep` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def claim(
        self, destination: str, now_us: int, *, lanes: int, per_lane: int, lease_ms: int
    ) -> Claim:
        """Lease up to so many lanes that are due, and the first sends of each."""
        token = uuid.uuid4()
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_claim"), destination, now_us, lanes, per_lane, token, lease_ms
            )
        found: dict[tuple[str, str], list[Claimed]] = {}
        for row in rows:
            found.setdefault((row["customer"], row["meter"]), []).append(_claimed(row))
        return Claim(str(token), tuple(tuple(lane) for lane in found.values()))

    async def finish(
        self, token: str, results: Sequence[SendResult], replacements: Sequence[Intent] = ()
    ) -> int:
        """Note results, and write what replaces some, at once; return how many were still ours."""
        ordered = sorted(results, key=lambda result: result.intent_id)
        async with self._postgres.connection() as connection, connection.transaction():
            rows = await connection.fetch(
                query("stripe_finish"),
                uuid.UUID(token),
                [each.intent_id for each in ordered],
                [each.state.value for each in ordered],
                [each.due_us for each in ordered],
                [each.doubtful for each in ordered],
                [each.unsent for each in ordered],
                [each.state not in OPEN for each in ordered],
                [each.alone for each in ordered],
                [each.batch_key for each in ordered],
                [each.code for each in ordered],
                [each.reason for each in ordered],
            )
            ours = {row["intent_id"] for row in rows}
            due = {each.intent_id: each.due_us for each in ordered}
            again = [each for each in replacements if each.replaces in ours]
            if again:
                await _replace(connection, again, min(due.values()))
        return len(rows)

    async def release(
        self, token: str, quiet: Mapping[tuple[str, MeterName], int] | None = None
    ) -> None:
        """Give back every lane of a claim; those in `quiet` stay alone until an instant."""
        lanes = [*(quiet or {}).items()]
        lease = uuid.UUID(token)
        async with self._postgres.connection() as connection, connection.transaction():
            # Locked first, so that what a planner adds to a lane meanwhile is seen after it.
            await connection.execute(query("stripe_lanes_held"), lease)
            await connection.execute(
                query("stripe_release"),
                lease,
                [customer for (customer, _), _ in lanes],
                [meter for (_, meter), _ in lanes],
                [until_us for _, until_us in lanes],
            )

    async def period(
        self, destination: str, customer: str, meter: MeterName, window: Window
    ) -> list[PeriodSend]:
        """Return what adds up in a stretch: what was taken, and what may have been."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_period"),
                *(destination, customer, meter, window.start_us, window.end_us),
            )
        return [
            PeriodSend(
                intent_id=IntentId(row["intent_id"]),
                value=Decimal(row["value"]),
                open=row["state"] not in (SendState.DELIVERED, SendState.SETTLED),
                first_us=row["first_attempt_us"] or 0,
                last_us=row["last_attempt_us"] or 0,
            )
            for row in rows
        ]

    async def depths(self, late_before_us: int) -> list[StripeDepth]:
        """Return what is not done, by destination and state; late is usage of before then."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("stripe_depths"), late_before_us)
        return [
            StripeDepth(
                row["destination"],
                SendState(row["state"]),
                row["sends"],
                row["oldest_us"],
                row["late"],
            )
            for row in rows
        ]

    async def report(
        self, destination: str, event_id: str, errors: Sequence[ReportedError], now_us: int
    ) -> ReportNoted:
        """Reject the sends that a report names, once per report."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                query("stripe_report"),
                event_id,
                destination,
                len(errors),
                [each.key for each in errors],
                [each.code for each in errors],
                [each.reason for each in errors],
                now_us,
            )
        assert row is not None
        return ReportNoted(bool(row["noted"]), row["rejected"], row["opened"])

    async def left(
        self,
        destination: str,
        states: Sequence[SendState],
        *,
        code: str = "",
        ids: Sequence[IntentId] | None = None,
        after: IntentId = IntentId(0),  # noqa: B008  a number
        limit: int = 1_000,
    ) -> list[LeftSend]:
        """Return sends in these states that nothing replaces, by number."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_left"),
                destination,
                [state.value for state in states],
                code,
                None if ids is None else list(ids),
                after,
                limit,
            )
        return [
            LeftSend(
                intent_id=IntentId(row["intent_id"]),
                intent=intent_of(row),
                state=SendState(row["state"]),
                doubtful=row["doubtful"],
                attempts=row["attempts"],
                code=row["code"],
                reason=row["reason"],
            )
            for row in rows
        ]

    async def replace(self, destination: str, replacements: Sequence[Intent], now_us: int) -> int:
        """Write what replaces open sends, and close these; return how many."""
        if not replacements:
            return 0
        async with self._postgres.connection() as connection, connection.transaction():
            await _replace(connection, replacements, now_us)
            closed = [each.replaces for each in replacements]
            rows = await connection.fetch(
                query("stripe_decide"), destination, closed, "sent again under another identifier"
            )
        return len(rows)

    async def decide(self, destination: str, ids: Sequence[IntentId], reason: str) -> int:
        """Close open sends as settled; return how many were open."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("stripe_decide"), destination, list(ids), reason)
        return len(rows)

    async def leave_shadow(self, destination: str, from_us: int, now_us: int) -> int:
        """Have what was planned in shadow sent, from an instant of usage on; return how many."""
        async with self._postgres.connection() as connection:
            count: int = await connection.fetchval(
                query("stripe_leave_shadow"), destination, from_us, now_us
            )
        return count


async def _replace(connection: "Lent", replacements: Sequence[Intent], now_us: int) -> None:
    """Write replacements, all or none: one that is lost would take its usage along."""
    new = await write_intents(connection, replacements, now_us)
    if len(new) != len(replacements):
        raise Contended("a window was planned meanwhile, or a send is replaced already")


def _claimed(row: asyncpg.Record) -> Claimed:
    return Claimed(
        intent_id=IntentId(row["intent_id"]),
        intent=intent_of(row),
        attempt=row["attempts"],
        doubtful=row["doubtful"],
        alone=row["alone"],
        first_us=row["first_attempt_us"],
        code=row["code"],
        cancelled=row["cancelled"],
        outdone=row["outdone"],
    )
