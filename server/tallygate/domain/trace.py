"""A place in a trace, as bytes, and as the W3C header `traceparent` spells it.

Guarantees: what is read of a header is a place that any tracer would take, or nothing; a place has
25 bytes: the trace's id, the span's id, and flags.
Refuses to know: tracers, and where headers come from.
"""

import re
from collections.abc import Iterable
from typing import Final

NOWHERE: Final = b""
"""No place at all."""
PLACE_BYTES: Final = 25
# What one batch or message is linked to at most: more links than a person follows, 800 bytes.
LINKS_MAX: Final = 32

_SAMPLED: Final = 1
# The ids are 32 and 16 digits of lower case; what later versions add comes after another dash.
_HEADER: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


def place(trace_id: int, span_id: int, *, sampled: bool = True) -> bytes:
    """Return the place of a span."""
    flags = _SAMPLED if sampled else 0
    return trace_id.to_bytes(16, "big") + span_id.to_bytes(8, "big") + bytes((flags,))


def read_header(header: str) -> bytes:
    """Return the place that a `traceparent` names, `NOWHERE` for one that is not well formed."""
    found = _HEADER.fullmatch(header)
    if found is None:
        return NOWHERE
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return NOWHERE
    return place(int(trace, 16), int(span, 16), sampled=bool(int(flags, 16) & _SAMPLED))


def header_of(at: bytes) -> str:
    """Return the `traceparent` of a place."""
    return f"00-{trace_id(at)}-{span_id(at)}-{at[24]:02x}"


def trace_id(at: bytes) -> str:
    """Return the trace's id as 32 digits."""
    return at[:16].hex()


def span_id(at: bytes) -> str:
    """Return the span's id as 16 digits."""
    return at[16:24].hex()


def is_sampled(at: bytes) -> bool:
    """Say whether the place is one whose spans are recorded."""
    return len(at) == PLACE_BYTES and bool(at[24] & _SAMPLED)


def stored(found: bytes) -> bytes:
    """Return a place that was stored, `NOWHERE` for bytes that are none or say nothing."""
    whole = is_sampled(found) and any(found[:16]) and any(found[16:24])
    return found if whole else NOWHERE


def packed(places: Iterable[bytes]) -> bytes:
    """Return places, each once, at most `LINKS_MAX`, as they are stored in one value."""
    return b"".join([*dict.fromkeys(each for each in places if each)][:LINKS_MAX])


def unpacked(value: bytes) -> tuple[bytes, ...]:
    """Return the places of a value, nothing of one that was not written by `packed`."""
    if len(value) % PLACE_BYTES or len(value) > LINKS_MAX * PLACE_BYTES:
        return ()
    parts = [value[at : at + PLACE_BYTES] for at in range(0, len(value), PLACE_BYTES)]
    return tuple(part for part in parts if stored(part))
