"""Holds: what a reservation holds is divided without loss, and expires once."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.detail import Piece, Portion, Share
from tallygate.domain.hold import (
    EXPIRED_MAX,
    Account,
    left_of,
    pieces_from_text,
    pieces_text,
    settle,
    share_text,
    shares_of,
)
from tallygate.domain.ids import ReservationId, account_of
from tallygate.domain.verdict import Counter
from tallygate.domain.window import SECOND_US
from tests.builders import ACME, charges, window

OWN = account_of(ACME)
FIELD = "monthly/month"
NOW = 1_000 * SECOND_US
SLOTS = st.lists(
    st.tuples(st.integers(-1, 9), st.integers(1, 50)), min_size=1, max_size=6
).map(tuple)  # fmt: skip


@st.composite
def portions(draw: st.DrawFn) -> Portion:
    """Return any share, and any way to settle it."""
    names = draw(
        st.lists(st.sampled_from(["a/day", "b/balance", "c/held"]), max_size=3, unique=True)
    )
    pieces = tuple(Piece(name, draw(SLOTS)) for name in names)
    used = tuple(draw(st.integers(0, piece.amount)) for piece in pieces)
    back = tuple(
        draw(st.integers(0, piece.amount - units))
        for piece, units in zip(pieces, used, strict=True)
    )
    return Portion(Share(OWN, pieces), used, back)


@given(portions())
def test_settling_divides_without_loss(portion: Portion) -> None:
    """Used up, given back and held still are all that was held, place by place."""
    for piece, used, back, done in zip(
        portion.share.pieces, portion.settled, portion.given_back, settle(portion), strict=True
    ):
        assert sum(units for _, units in done.used) == used
        assert sum(units for _, units in done.back) == back
        everywhere = [*done.used, *done.left, *done.back]
        for place in {place for place, _ in piece.slots}:
            held = sum(units for where, units in piece.slots if where == place)
            assert sum(units for where, units in everywhere if where == place) == held
        assert all(units > 0 for _, units in everywhere)


@given(portions())
def test_what_is_used_up_leaves_from_the_front(portion: Portion) -> None:
    """Used up, then held still, then given back from behind: the slots in their order."""
    for piece, done in zip(portion.share.pieces, settle(portion), strict=True):
        units = [place for place, count in piece.slots for _ in range(count)]
        parts = [*done.used, *done.left, *reversed(done.back)]
        assert [place for place, count in parts for _ in range(count)] == units


@given(portions())
def test_a_share_reads_back_as_it_was_written(portion: Portion) -> None:
    """The text of pieces is read as those pieces."""
    pieces = portion.share.pieces
    assert pieces_from_text(pieces_text(pieces)) == pieces
    left = left_of(settle(portion))
    assert pieces_from_text(pieces_text(left)) == left


def held(count: int, ends_us: int = NOW, units: int = 2) -> Account:
    """Return an account of a window with so many reservations that end one after the other."""
    account = Account({FIELD: Counter(5, count * units, 0)})
    for number in range(count):
        share = Share(OWN, (Piece(FIELD, ((5, units),)),))
        account.hold(share_text(share, ReservationId(f"r{number}")), share, ends_us + number)
    return account


def test_a_hold_expires_at_its_end_and_not_before() -> None:
    """The units come back at the instant at which the hold ends, and only once."""
    account = held(2)
    account.expire(NOW - 1)
    assert account.counters[FIELD] == Counter(5, 4, 0)
    account.expire(NOW)
    assert account.counters[FIELD] == Counter(5, 2, 0)
    assert account.next_hold_us == NOW + 1
    account.expire(NOW)
    assert account.counters[FIELD] == Counter(5, 2, 0)
    account.expire(NOW + 1)
    assert account.counters[FIELD] == Counter(5, 0, 0)
    assert account.next_hold_us == 0
    assert not account.holds


def test_more_expired_holds_than_a_script_may_free_wait() -> None:
    """A call frees a bounded number, the oldest first; the next call goes on."""
    account = held(EXPIRED_MAX + 3)
    account.expire(NOW + EXPIRED_MAX + 3)
    assert len(account.holds) == 3
    assert account.next_hold_us == NOW + EXPIRED_MAX
    account.expire(NOW + EXPIRED_MAX + 3)
    assert account.counters[FIELD] == Counter(5, 0, 0)


def test_units_of_a_window_that_is_over_do_not_come_back() -> None:
    """What was taken from an older window is not given to the one of today."""
    account = held(1)
    account.counters[FIELD] = Counter(6, 9, 0)
    account.expire(NOW)
    assert account.counters[FIELD] == Counter(6, 9, 0)


def test_a_reservation_holds_only_what_it_took() -> None:
    """Charges that took nothing are in no share; those of one account are in one."""
    asked = charges([window("one"), window("two"), window("three")], 1)
    (share,) = shares_of(asked, [((5, 1),), (), ((7, 1),)])
    assert [piece.field for piece in share.pieces] == ["one/month", "three/month"]


def test_what_is_held_of_a_counter_is_told_by_end() -> None:
    """A reset keeps what is held: every slot of the counter, and of no other."""
    account = held(2)
    other = Share(OWN, (Piece("other/day", ((1, 9),)),))
    account.hold(share_text(other, ReservationId("other")), other, NOW)
    assert account.held(FIELD) == [(5, 2), (5, 2)]
