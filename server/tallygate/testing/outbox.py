"""An outbox in memory.

Guarantees: passes the same contract tests as the outbox in Postgres.
Refuses to know: other fakes; messages are put in by hand.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tallygate.domain.errors import BackendUnavailable
from tallygate.ports import Delivery, OutboxDepth


@dataclass(slots=True)
class Row:
    """One message on its way to one destination. `state` is pending, delivered or parked."""

    message_id: str
    destination: str
    type: str
    payload: bytes
    created_at_us: int
    due_at_us: int
    state: str = "pending"
    attempt: int = 0
    lease_token: str = ""
    reason: str = ""
    trace: bytes = b""


class FakeOutbox:
    """The `Outbox` port over a list of rows. Set `down` to have it not answer."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.rows: list[Row] = []
        self.down = False

    def put(self, destination: str, kind: str, payload: bytes, *, trace: bytes = b"") -> str:
        """Write a message of a type for one destination; return its id."""
        now_us = self._now_us()
        row = Row(str(uuid.uuid4()), destination, kind, payload, now_us, now_us, trace=trace)
        self.rows.append(row)
        return row.message_id

    async def claim(self, destination: str, count: int, lease_ms: int) -> list[Delivery]:
        """Lease up to `count` deliveries that are due, attempt counted."""
        self._answer()
        now_us, token = self._now_us(), str(uuid.uuid4())
        due = [
            row
            for row in self.rows
            if row.destination == destination and row.state == "pending" and row.due_at_us <= now_us
        ]
        # Sorting is stable: rows that are due alike stay in the order they were written.
        taken = sorted(due, key=lambda row: row.due_at_us)[:count]
        for row in taken:
            row.attempt += 1
            row.lease_token = token
            row.due_at_us = now_us + lease_ms * 1000
        return [
            Delivery(
                message_id=row.message_id,
                destination=row.destination,
                type=row.type,
                payload=row.payload,
                attempt=row.attempt,
                lease_token=token,
                created_at_us=row.created_at_us,
                trace=row.trace,
            )
            for row in sorted(taken, key=lambda row: row.created_at_us)
        ]

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Mark as delivered those still ours; return how many were."""
        self._answer()
        ours = [row for row in map(self._ours, deliveries) if row is not None]
        for row in ours:
            row.state, row.lease_token, row.reason = "delivered", "", ""
        return len(ours)

    async def retry(self, delivery: Delivery, delay_ms: int, reason: str) -> bool:
        """Give back for another try after `delay_ms`; say whether it was still ours."""
        self._answer()
        row = self._ours(delivery)
        if row is None:
            return False
        row.due_at_us = self._now_us() + delay_ms * 1000
        row.lease_token, row.reason = "", reason
        return True

    async def park(self, delivery: Delivery, reason: str) -> bool:
        """Set aside for a person, with the reason; say whether it was still ours."""
        self._answer()
        row = self._ours(delivery)
        if row is None:
            return False
        row.state, row.lease_token, row.reason = "parked", "", reason
        return True

    async def depths(self) -> list[OutboxDepth]:
        """Return the depth of every destination that has something left."""
        self._answer()
        left = [row for row in self.rows if row.state != "delivered"]
        return [
            _depth(name, [row for row in left if row.destination == name])
            for name in sorted({row.destination for row in left})
        ]

    def _ours(self, delivery: Delivery) -> Row | None:
        for row in self.rows:
            if (
                row.message_id == delivery.message_id
                and row.destination == delivery.destination
                and row.state == "pending"
                and row.lease_token == delivery.lease_token
            ):
                return row
        return None

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


def _depth(destination: str, rows: Sequence[Row]) -> OutboxDepth:
    pending = [row.created_at_us for row in rows if row.state == "pending"]
    return OutboxDepth(destination, len(pending), len(rows) - len(pending), min(pending, default=0))
