"""What Redis stores of a counter, read back.

Guarantees: a state reads back as the script wrote it; what it did not write is None.
Refuses to know: limits.
"""

import re
from typing import Final

from tallygate.domain.balance import Balance
from tallygate.domain.detail import Grant
from tallygate.domain.limit import State
from tallygate.domain.sliding import Buckets
from tallygate.domain.verdict import Counter

_COUNTER: Final = re.compile(r"(\d+):(\d+):(\d+)")
_BUCKETS: Final = re.compile(r"s((?:\d+=\d+(?:,|$))*)")
_BALANCE: Final = re.compile(r"b(\d+):(\d+):(\d+)((?:;\d+:-?\d+:\d+:\d+:\d+:\d+)*)")


def state_from_text(text: str) -> State | None:
    """Return the state that a value of an account's hash is, None for anything else."""
    if found := _COUNTER.fullmatch(text):
        return Counter(int(found[1]), int(found[2]), int(found[3]))
    if found := _BUCKETS.fullmatch(text):
        parts = (part.split("=") for part in found[1].split(",") if part)
        return Buckets(tuple((int(place), int(units)) for place, units in parts))
    if found := _BALANCE.fullmatch(text):
        grants = tuple(
            Grant(*(int(number) for number in part.split(":")))
            for part in found[4].split(";")
            if part
        )
        return Balance(int(found[1]), int(found[2]), int(found[3]), grants)
    return None
