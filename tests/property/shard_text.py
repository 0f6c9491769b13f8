"""How Redis must show what the specification holds, and where reserved units may be.

Owns the stored form, written once more and independently of the adapter. Refuses to know steps.
"""

from collections import Counter as Multiset
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.account import Accounts
from tallygate.domain.balance import Balance
from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
    Outcome,
    RateRule,
)
from tallygate.domain.detail import (
    Hold,
    Settlement,
    Share,
)
from tallygate.domain.entry import Burned, Crossed, Entry, Record
from tallygate.domain.hold import share_text
from tallygate.domain.ids import AccountId, SourceId, epoch_of
from tallygate.domain.limit import State
from tallygate.domain.sliding import Buckets
from tallygate.domain.verdict import Counter


def state_text(state: State) -> str:
    """Return what Redis stores of a state."""
    match state:
        case Counter():
            return f"{state.at_us}:{state.amount}:{state.mark}"
        case Buckets():
            return "s" + ",".join(f"{place}={units}" for place, units in state.units)
        case Balance():
            head = f"b{state.seq}:{state.owed}:{state.mark}"
            grants = (
                f"{each.seq}:{each.priority}:{each.starts_us}:{each.expires_us}:{each.granted}"
                f":{each.remaining}"
                for each in state.grants
            )
            return ";".join([head, *grants])


def shown_entry(shard: int, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the fields of a stream entry without its epoch; all of it can be decoded."""
    assert fields.pop(b"e").decode() == epoch_of(SourceId(fields[b"s"].decode()))
    entry = decode_entry(shard, "1-0", fields)
    told = (len(entry.ranges), len(entry.crossings), len(entry.burns))
    names = [name[:1] for name in fields]
    assert told == (names.count(b"u") + names.count(b"j"), names.count(b"x"), names.count(b"b"))
    return fields


def expected_entry(entry: Entry) -> dict[bytes, bytes]:
    """Return the fields that a stream entry must have."""
    fields = {b"t": str(entry.at_us).encode(), b"s": entry.source_id.encode()}
    numbers = {"x": 0, "b": 0}
    for part in entry.parts:
        if isinstance(part, Record):
            reason = part.reject_reason
            name = f"{'j' if reason else 'u'}{part.first_seq}+{part.event_count}"
            fields[name.encode()] = (f"{reason}|".encode() if reason else b"") + part.payload
            continue
        match part:
            case Crossed():
                letter = "x"
                text = (
                    f"{part.limit_id},{part.meter},{part.ratio_ppm},{part.threshold},{part.used}"
                    f",{part.limit},{part.starts_us},{part.ends_us},{part.account}"
                )
            case Burned():
                letter = "b"
                text = f"{part.limit_id},{part.place},{part.units},{part.account}"
            case _:
                assert_never(part)
        numbers[letter] += 1
        fields[f"{letter}{numbers[letter]}".encode()] = text.encode()
    return fields


Counts = Multiset[tuple[AccountId, str]]
Held = Mapping[AccountId, Mapping[str, tuple[int, Share]]]


@dataclass(slots=True)
class Conservation:
    """Per counter: units granted to reservations, less those settled, given back and expired."""

    now_us: int = 0
    open: Counts = field(default_factory=Multiset)

    def decided(
        self,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome],
        held: Held,
        now: Accounts,
    ) -> None:
        """Note what a call has granted, settled and given back; `held` is what was held before."""
        settled: set[tuple[AccountId, str]] = set()
        anew: set[tuple[AccountId, str]] = set()
        for operation, outcome in zip(operations, outcomes, strict=True):
            if not isinstance(outcome, Decided) or not outcome.allowed or outcome.replayed:
                continue
            if operation.mode is Mode.RESERVE:
                assert isinstance(operation.detail, Hold)
                for charge in operation.charges:
                    if not isinstance(charge.rule, RateRule):
                        self.open[charge.account, charge.field] += charge.amount
                key = (operation.tenant_id, operation.detail.reservation_id)
                shares = now.reservations[key].reservation.shares
                anew |= {(share.account, share_text(share, key[1])) for share in shares}
            elif isinstance(operation.detail, Settlement):
                for portion in operation.detail.portions:
                    text = share_text(portion.share, operation.detail.reservation_id)
                    settled.add((portion.share.account, text))
                    parts = (portion.share.pieces, portion.settled, portion.given_back)
                    for piece, used, back in zip(*parts, strict=True):
                        self.open[portion.share.account, piece.field] -= used + back
        for account, before in held.items():
            for text, (ends_us, share) in before.items():
                kept = text in now.accounts[account].holds or (account, text) in settled
                # What is reserved under an old name has to be over first.
                if not kept or (account, text) in anew:
                    self._expired(account, ends_us, share)

    def _expired(self, account: AccountId, ends_us: int, share: Share) -> None:
        assert ends_us <= self.now_us, "a hold has gone that was neither settled nor over"
        for piece in share.pieces:
            self.open[account, piece.field] -= piece.amount

    def check(self, model: Accounts) -> None:
        """What is granted is settled, given back, expired, or held still: no unit more or less."""
        held: Counts = Multiset()
        for account, found in model.accounts.items():
            for _, share in found.holds.values():
                for piece in share.pieces:
                    held[account, piece.field] += piece.amount
        assert +self.open == +held
        assert not -self.open, f"more came back than was granted: {-self.open}"
        for account, found in model.accounts.items():
            for name, state in found.counters.items():
                if name.endswith("/held"):
                    assert isinstance(state, Counter)
                    assert state.amount == held[account, name]
