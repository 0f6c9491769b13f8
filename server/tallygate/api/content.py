"""What a request of CheckAndConsume says beside its operation id, found without reading it.

Guarantees: read by the library, the request is its content with the id that is told.
Refuses to know: what the content means.

To read a message and to write it again without a field costs three times as much.
"""

from typing import Final

_SIZED_TAGS: Final = frozenset((0x0A, 0x12, 0x1A, 0x22))
_OPERATION_ID: Final = 0x1A
_DURABILITY: Final = 0x28
_MORE: Final = 0x80


def without_id(request: bytes) -> tuple[bytes, str] | None:
    """Return the request without its operation id, and the id.

    None where that takes a closer look: no id, two of them, or fields that are not known.
    """
    place, size, start, stop = 0, len(request), 0, 0
    named = b""
    try:
        while place < size:
            tag, length, begins = request[place], request[place + 1], place + 2
            if length >= _MORE and tag != _DURABILITY:
                more = request[begins]
                length, begins = length & 0x7F | more << 7, begins + 1
                if more >= _MORE:
                    return None
            if tag in _SIZED_TAGS:
                ends = begins + length
                if tag == _OPERATION_ID:
                    if stop:
                        return None
                    start, stop, named = place, ends, request[begins:ends]
            elif tag == _DURABILITY and length < _MORE:
                ends = begins
            else:
                return None
            place = ends
        if not named or place != size:
            return None
        return request[:start] + request[stop:], named.decode("ascii")
    except (IndexError, UnicodeDecodeError):
        return None
