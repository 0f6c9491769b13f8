"""Pages of lists: their size, and the tokens that say where the next one begins.

Guarantees: a token that is not one of ours is refused as any other wrong field is.
Refuses to know: what is listed.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Final

from tallygate.domain import ids
from tallygate.domain.errors import InvalidField

PAGE_DEFAULT: Final = 100
# A position is two names of at most 128 characters, escaped and encoded, and a few numbers.
TOKEN_LENGTH_MAX: Final = 4_096


def page_size(asked: int, most: int) -> int:
    """Return how many rows a page has. Raises `InvalidField`."""
    if not 0 <= asked <= most:
        raise InvalidField(f"must be from 0 to {most}", field="page_size")
    return asked or PAGE_DEFAULT


def encoded(position: Sequence[str | int]) -> str:
    """Return a position as a token."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def decoded(token: str, length: int) -> list[object]:
    """Return the position that a token holds, nothing for none. Raises `InvalidField`."""
    if not token:
        return []
    try:
        if len(token) > TOKEN_LENGTH_MAX:
            raise foreign_token()
        position = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        # Brackets within brackets are JSON too.
        raise foreign_token() from None
    if not isinstance(position, list) or len(position) != length:
        raise foreign_token()
    return position


def foreign_token() -> InvalidField:
    """Return the error about a token that is not one of ours."""
    return InvalidField("is not a page token of ours", field="page_token")


def name(value: str, field: str) -> str:
    """Return `value` if it may name a meter, a limit or a plan. Raises `InvalidField`."""
    if not ids.is_name(value):
        raise InvalidField("is not a name: a-z, 0-9, '_', '.', '-'", field=field)
    return value
