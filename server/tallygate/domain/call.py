"""One call of the script: its time, its source, and what its stream entry holds so far.

Guarantees: accepted events are numbered without a gap, from the last number that was given out.
Refuses to know: accounts, and what is accepted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.decision import Charge, Decided, LimitReading, Operation, Outcome
from tallygate.domain.entry import Burned, Crossed, Part, Record
from tallygate.domain.ids import AccountId, LimitId, SourceId
from tallygate.domain.verdict import Crossing


@dataclass(slots=True)
class Call:
    """A call under way. `last_seq` is the last number that its source has been given."""

    now_us: int
    source_id: SourceId
    last_seq: int
    parts: list[Part] = field(default_factory=list)

    def append(self, operation: Operation, payload: bytes, count: int) -> int:
        """Append events to the entry; return the first one's number, 0 for none."""
        if count == 0:
            return 0
        first_seq = self.last_seq + 1
        self.last_seq += count
        self.parts.append(Record(first_seq, count, payload, operation.reject_reason))
        return first_seq

    def burn(self, of: AccountId, name: str, slots: Iterable[tuple[int, int]]) -> None:
        """Tell of units that have left a balance for good; other kinds keep no such book."""
        limit_id, _, measure = name.partition("/")
        if measure == "balance":
            self.parts.extend(Burned(of, LimitId(limit_id), place, units) for place, units in slots)

    def cross(self, charge: Charge, crossings: Sequence[Crossing]) -> None:
        """Tell of the thresholds that a charge has reached."""
        self.parts.extend(
            Crossed(
                account=charge.account,
                limit_id=charge.limit_id,
                meter=charge.meter,
                ratio_ppm=crossing.ratio_ppm,
                threshold=crossing.threshold,
                used=crossing.used,
                limit=charge.limit,
                starts_us=crossing.starts_us,
                ends_us=crossing.ends_us,
            )
            for crossing in crossings
        )

    def signed(self, outcome: Outcome) -> Outcome:
        """Return the outcome with our name to it, if it is a decision that has none yet."""
        if isinstance(outcome, Decided) and not outcome.source_id:
            return replace(outcome, source_id=self.source_id)
        return outcome

    def answer(
        self, readings: Sequence[LimitReading], first_seq: int, refused_by: LimitId | None = None
    ) -> Decided:
        """Return what was decided, with its events' first number, 0 for none."""
        return Decided(
            True,
            self.now_us,
            tuple(readings),
            refused_by,
            first_seq=first_seq,
            source_id=self.source_id,
        )
