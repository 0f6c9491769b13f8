"""Calls that differ by their operation ids alone: their events, made without an encoder.

Guarantees: what is made here is, byte for byte, what encoding each call would give: that was tried
when it was made.
Refuses to know: encodings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.decision import Mode
from tallygate.domain.fingerprint import fingerprint
from tallygate.domain.ids import OperationId, TenantId

# Ids of fewer characters are too easily found within something else.
ID_BYTES_MIN: Final = 8
# What stands for an id holds no character that an id may, and nothing that is likely elsewhere.
_STAND_IN: Final = "\x02\x03\x05"

Encode = Callable[[OperationId], bytes]


@dataclass(frozen=True, slots=True)
class Alike:
    """Calls of a tenant with `event_count` events each, whose ids have `id_bytes` characters.

    A call's events are `parts` with its id in between. Of one part alone, and with `id_bytes` 0,
    it is one call's.
    """

    tenant_id: TenantId
    event_count: int
    id_bytes: int
    parts: tuple[bytes, ...]

    def payload(self, of: OperationId) -> bytes:
        """Return a call's events, encoded."""
        return of.encode().join(self.parts)

    def fingerprint(self, of: OperationId) -> str:
        """Return what tells a repeat of a call from another one with its id."""
        return fingerprint(Mode.CONSUME, of.encode().join(self.parts))

    def fingerprints(self, ids: Sequence[OperationId], stem: str) -> tuple[str, ...]:
        """Return the fingerprint of each call; those of one stem have one."""
        if stem:
            return (self.fingerprint(ids[0]),) * len(ids)
        return tuple([self.fingerprint(of) for of in ids])

    def changed(self, change: Callable[[bytes], bytes]) -> "Alike | None":
        """Return the calls with their events changed; None where the ids are not found in them."""
        between = _stand_in(self.id_bytes)
        whole = change(between.join(self.parts))
        parts = whole.split(between) if between else [whole]
        if len(parts) != len(self.parts):
            return None
        return Alike(self.tenant_id, self.event_count, self.id_bytes, tuple(parts))


def alike_of(tenant_id: TenantId, event_count: int, id_bytes: int, encode: Encode) -> Alike | None:
    """Return calls whose events `encode` makes of their ids; None where that cannot be told."""
    if id_bytes < ID_BYTES_MIN:
        return None
    between = _stand_in(id_bytes)
    parts = encode(OperationId(between.decode())).split(between)
    found = Alike(tenant_id, event_count, id_bytes, tuple(parts))
    tried = (OperationId(letter * id_bytes) for letter in "a0~")
    return found if all(found.payload(of) == encode(of) for of in tried) else None


def _stand_in(id_bytes: int) -> bytes:
    return (_STAND_IN * id_bytes)[:id_bytes].encode()
