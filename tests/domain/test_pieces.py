"""Windows are cut into whole buckets, without a rest and without an overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.errors import InvalidField
from tallygate.domain.pieces import LEVELS_US, Piece, checked, pieces
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window

MINUTES = st.integers(-2_000_000, 40_000_000)


@given(MINUTES, MINUTES)
def test_pieces_cover_a_window_once(one: int, other: int) -> None:
    """Pieces adjoin from the window's start to its end, each of whole buckets; five at most."""
    first, last = sorted((one, other))
    window = Window(first * MINUTE_US, last * MINUTE_US)
    found = list(pieces(window))
    ends = [window.start_us, *(piece.end_us for piece in found)]
    assert [piece.start_us for piece in found] == ends[:-1]
    assert ends[-1] == window.end_us
    assert len(found) <= 5
    for piece in found:
        assert piece.start_us % LEVELS_US[piece.level] == 0 == piece.end_us % LEVELS_US[piece.level]
        assert piece.start_us < piece.end_us


def test_a_day_is_one_piece() -> None:
    """Where a window is whole buckets of a length, it is one piece of them."""
    assert list(pieces(Window(0, 3 * DAY_US))) == [Piece(2, 0, 3 * DAY_US)]
    assert list(pieces(Window(HOUR_US, 2 * HOUR_US))) == [Piece(1, HOUR_US, 2 * HOUR_US)]


@pytest.mark.parametrize(
    ("from_us", "to_us", "field"), [(1, MINUTE_US, "from"), (0, 1, "to"), (0, 0, "to")]
)
def test_bounds_are_whole_minutes(from_us: int, to_us: int, field: str) -> None:
    """A bound within a minute, or a window of nothing, is refused by its name."""
    with pytest.raises(InvalidField) as raised:
        checked(from_us, to_us)
    assert raised.value.field == field
