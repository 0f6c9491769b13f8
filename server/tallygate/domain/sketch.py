"""A sketch of how amounts are distributed: counts by slots that grow with what they hold.

Guarantees: a slot's amounts are within 1/128 of the amount that stands for it; amounts below 128
have slots of their own. Only whole numbers are used, so that every machine finds the same slot.
Refuses to know: where the counts are kept.

An octave, from a power of two to the next, has 64 slots of the same width, as in Tene's
HdrHistogram; amounts up to 2^53 need fewer than 3,100.
"""

from collections.abc import Mapping
from typing import Final

_OCTAVE: Final = 64
_EXACT_BITS: Final = 7


def slot_of(amount: int) -> int:
    """Return the slot of an amount of 0 or more."""
    shift = max(0, amount.bit_length() - _EXACT_BITS)
    return shift * _OCTAVE + (amount >> shift)


def amount_of(slot: int) -> int:
    """Return the amount that stands for a slot: the middle of what it holds."""
    shift = max(0, slot // _OCTAVE - 1)
    return (slot - shift * _OCTAVE << shift) + ((1 << shift) - 1) // 2


def percentile(counts: Mapping[int, int], ppm: int) -> int:
    """Return the smallest slot that `ppm` millionths of all amounts do not pass; 0 for none.

    That is the nearest rank: of 20 amounts, the 95th percentile is in the slot of the 19th.
    """
    rank = max(1, -(-sum(counts.values()) * ppm // 1_000_000))
    passed = 0
    for slot in sorted(counts):
        passed += counts[slot]
        if passed >= rank:
            return slot
    return 0
