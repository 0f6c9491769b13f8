"""A captured outbox in memory, and a recorder that knows what it has.

Guarantees: it passes the suite that the adapter passes; time is what its clock says.
Refuses to know: triggers.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.captured import CaptureBacklog, CapturedUse, Settled
from tallygate.domain.recording import Outcome, Recorded, Refused, Use
from tallygate.ports.capture import CaptureOutbox, Claimed
from tallygate.ports.recording import UsageRecorder


@dataclass(slots=True)
class _Row:
    use: CapturedUse
    due_us: int = 0
    lease: str = ""


class FakeCaptureOutbox(CaptureOutbox):
    """The `CaptureOutbox` port; one key of a level for each tenant and meter."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._rows: dict[int, _Row] = {}
        self._changes: list[tuple[str, str, int]] = []
        self._levels: dict[tuple[str, str], int] = {}
        self._count = 0
        self.rejected: dict[int, tuple[CapturedUse, Refused]] = {}

    def put(self, tenant: str, meter: str, amount: int) -> str:
        """Write a row; return its event id."""
        self._count += 1
        event_id = f"pg-{uuid.uuid4()}"
        use = CapturedUse(self._count, event_id, tenant, meter, amount, self._now_us(), attempts=0)
        self._rows[self._count] = _Row(use)
        return event_id

    def change(self, tenant: str, meter: str, units: int) -> None:
        """Change a level."""
        self._changes.append((tenant, meter, units))

    async def fold(self, at_most: int) -> int:
        """Have changes of levels become rows."""
        taken, self._changes = self._changes[:at_most], self._changes[at_most:]
        sums: dict[tuple[str, str], int] = {}
        for tenant, meter, units in taken:
            sums[tenant, meter] = sums.get((tenant, meter), 0) + units
        for key, units in sums.items():
            if units:
                self._levels[key] = self._levels.get(key, 0) + units
                self.put(*key, self._levels[key])
        return len(taken)

    async def claim(self, at_most: int, lease_ms: int) -> Claimed:
        """Take rows that are due."""
        lease = str(uuid.uuid4())
        due = [row for row in self._rows.values() if row.due_us <= self._now_us()][:at_most]
        for row in due:
            row.lease, row.due_us = lease, self._now_us() + lease_ms * 1000
            row.use = replace(row.use, attempts=row.use.attempts + 1)
        return Claimed(lease, [row.use for row in due])

    async def settle(self, lease: str, settled: Settled) -> int:
        """Do away with what is done."""
        done = 0
        for number in (*settled.accepted, *settled.refused, *settled.later_ms):
            row = self._rows.get(number)
            if row is None or row.lease != lease:
                continue
            done += 1
            if number in settled.later_ms:
                row.lease = ""
                row.due_us = self._now_us() + settled.later_ms[number] * 1000
                continue
            del self._rows[number]
            if number in settled.refused:
                self.rejected[number] = (row.use, settled.refused[number])
        return done

    async def backlog(self) -> CaptureBacklog:
        """Return what the outbox holds."""
        times = [row.use.captured_at_us for row in self._rows.values()]
        oldest_s = (self._now_us() - min(times)) / 1_000_000 if times else 0.0
        return CaptureBacklog(len(self._rows), len(self._changes), oldest_s, len(self.rejected))


@dataclass(slots=True)
class FakeRecorder(UsageRecorder):
    """The `UsageRecorder` port: `answers` are given instead, by event id or by meter."""

    answers: dict[str, Outcome] = field(default_factory=dict)
    calls: list[Sequence[Use]] = field(default_factory=list)
    known: dict[str, Use] = field(default_factory=dict)
    taken_back: list[str] = field(default_factory=list)

    async def record(self, uses: Sequence[Use]) -> Sequence[Outcome]:
        """Record a list."""
        self.calls.append(uses)
        return [self._one(use) for use in uses]

    async def take_back(self, use: Use) -> Outcome:
        """Refund all of an event."""
        answer = self.answers.get(f"{use.event_id}.back")
        if answer is not None:
            return answer
        replayed = use.event_id in self.taken_back
        if not replayed:
            self.taken_back.append(use.event_id)
        return Recorded(replayed)

    def _one(self, use: Use) -> Outcome:
        answer = self.answers.get(use.event_id) or self.answers.get(use.meter)
        if answer is not None:
            return answer
        before = self.known.get(use.event_id)
        if before is not None and before != use:
            return Refused("OPERATION_ID_REUSED", "another event had this id")
        self.known[use.event_id] = use
        return Recorded(before is not None)
