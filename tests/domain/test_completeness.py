"""Every number that was given out stands in exactly one term of the identity."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.completeness import LaneState, Ranges, identity, joined, size, without
from tallygate.domain.ids import SourceId

NOW = (SourceId("a.now"), 0)
OLD = (SourceId("a.old"), 0)
numbers = st.sets(st.integers(1, 40))


def ranges(found: set[int]) -> Ranges:
    """Return numbers as ranges."""
    return joined((each, each) for each in found)


@given(numbers, numbers)
def test_ranges_are_sets(one: set[int], other: set[int]) -> None:
    """Ranges joined and taken away hold what sets hold."""
    assert joined([*ranges(one), *ranges(other)]) == ranges(one | other)
    assert without(ranges(one), ranges(other)) == ranges(one - other)
    assert size(ranges(one)) == len(one)


@given(st.integers(0, 45), numbers, numbers, st.booleans())
def test_the_terms_add_up(last: int, seen: set[int], waiting: set[int], rebuilt: bool) -> None:
    """Whatever the ledger and the stream have, of this epoch or an older one, nothing is twice."""
    for lane in (NOW, OLD):
        last = max([last, *seen])
        state = LaneState(last, ranges(seen), ranges(waiting))
        found = identity({lane: state}, {0: ("now", rebuilt)}, dead_letters=min(2, len(seen)))
        known = set(range(1, last + 1))
        nowhere = len(known - seen - waiting)
        assert found.accepted == len(known)
        assert found.in_stream == len((known - seen) & waiting)
        term = "unaccounted" if lane == NOW else "lost" if rebuilt else "awaited"
        assert {name: getattr(found, name) for name in ("unaccounted", "lost", "awaited")} == {
            "unaccounted": 0,
            "lost": 0,
            "awaited": 0,
            term: nowhere,
        }
        others = found.persisted + found.dead_letters + found.in_stream
        assert found.accepted == others + found.awaited + found.lost + found.unaccounted
        gaps = len(without(((1, max(seen)),), ranges(seen))) if seen else 0
        assert found.gaps == gaps
