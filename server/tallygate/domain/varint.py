"""Protobuf's wire format, as far as bytes are put together by hand where every call does so.

Guarantees: what is written here is what the protobuf library would write of the same fields.
Refuses to know: messages.

A library's message is made field by field, over its own objects, to be written once and thrown
away: for a reply of two limits that took five times as long as joining bytes that are known.
"""

from typing import Final

_BITS: Final = 14
_MASK: Final = (1 << _BITS) - 1
_TWICE: Final = 2 * _BITS
_TWO_TURNS: Final = 1 << _TWICE
_THREE_TURNS: Final = 1 << 3 * _BITS
_SIXTY_FOUR: Final = (1 << 64) - 1
# Two bytes at once, of which more follow; and the last two, or one.
_MORE: Final = tuple(bytes((low & 127 | 128, low >> 7 | 128)) for low in range(1 << _BITS))
_LAST: Final = tuple(
    bytes((low,)) if low < 128 else bytes((low & 127 | 128, low >> 7)) for low in range(1 << _BITS)
)


def varint(value: int) -> bytes:
    """Return a number, below 2^64, as the wire has it; one below 0 as an int64."""
    if 0 <= value <= _MASK:
        return _LAST[value]
    if 0 < value < _TWO_TURNS:
        # As most units are.
        return _MORE[value & _MASK] + _LAST[value >> _BITS]
    if 0 < value < _THREE_TURNS:
        return _MORE[value & _MASK] + _MORE[value >> _BITS & _MASK] + _LAST[value >> _TWICE]
    value &= _SIXTY_FOUR
    found = _MORE[value & _MASK]
    value >>= _BITS
    while value > _MASK:
        found += _MORE[value & _MASK]
        value >>= _BITS
    return found + _LAST[value]


def varints(values: range) -> list[bytes]:
    """Return numbers of 0 or more in a row, each as the wire has it."""
    first, last = values[0], values[-1]
    if first <= _MASK or first >> _BITS != last >> _BITS:
        return [varint(each) for each in values]
    # They differ in their low bits alone.
    rest = varint(first >> _BITS)
    return [_MORE[each & _MASK] + rest for each in values]


def sized(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes, a text or a message, also where it is empty."""
    size = len(content)
    return tag + (_LAST[size] if size <= _MASK else varint(size)) + content


def text(tag: bytes, value: str) -> bytes:
    """Return a text's field, nothing for an empty one."""
    return sized(tag, value.encode()) if value else b""


def number(tag: bytes, value: int) -> bytes:
    """Return a number's field, nothing for 0."""
    return tag + varint(value) if value else b""


def micros(tag: bytes, value_us: int) -> bytes:
    """Return the field of a Timestamp, or of a Duration of 0 or more, from µs."""
    seconds, rest_us = divmod(value_us, 1_000_000)
    content = b"\x08" + varint(seconds) if seconds else b""
    if rest_us:
        content += b"\x10" + varint(rest_us * 1000)
    return tag + _LAST[len(content)] + content
