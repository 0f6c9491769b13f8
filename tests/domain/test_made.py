"""Ids that the service makes for calls that came together."""

from tallygate.domain.decision import Mode
from tallygate.domain.fingerprint import fingerprint
from tallygate.domain.ids import OperationId, operation_id
from tallygate.domain.made import (
    PLACES_MAX,
    STEM_DIGITS,
    made_ids,
    place_of,
    stem_of,
    stem_of_digits,
    without_places,
)

STEM = stem_of_digits("0123456789abcdef01234567")


def test_ids_of_a_stem_tell_their_places() -> None:
    """Each is an id as callers have them, of one length, and of the stem; none comes twice."""
    made = made_ids(STEM, 0, PLACES_MAX)
    assert len(set(made)) == PLACES_MAX
    assert [place_of(each) for each in made] == list(range(PLACES_MAX))
    assert {stem_of(each) for each in made} == {STEM}
    assert {len(operation_id(each)) for each in made} == {STEM_DIGITS + 4}
    assert made_ids(STEM, 7, 9) == made[7:9]


def test_other_ids_have_no_stem() -> None:
    """What only looks alike is an id like any other."""
    others = ["a", "~", STEM, f"{STEM}0", f"{STEM}000", f"{STEM}0G", f"x{STEM}00", STEM.upper()]
    assert [stem_of(OperationId(each)) for each in others] == [""] * len(others)


def test_contents_of_a_stem_are_one() -> None:
    """Calls that differ by their places have one fingerprint; by anything else, two."""

    def told(of: str, more: str = "") -> str:
        return fingerprint(Mode.CONSUME, f"\n{of}:0\x12{of}{more}".encode())

    first, second = made_ids(STEM, 0, 2)
    other = made_ids(stem_of_digits("f" * STEM_DIGITS), 0, 1)[0]
    assert told(first) == told(second) != told(other)
    assert told(first) != told(first, "more")
    assert without_places(b"a~b") == b"a~b"
