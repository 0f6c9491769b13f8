"""Places in traces: which headers are read, and how places are stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.trace import (
    LINKS_MAX,
    NOWHERE,
    header_of,
    is_sampled,
    packed,
    place,
    read_header,
    span_id,
    stored,
    trace_id,
    unpacked,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"

ids = st.integers(1, (1 << 64) - 1)


@given(ids, ids, st.booleans())
def test_a_header_is_read_as_it_was_written(trace: int, span: int, sampled: bool) -> None:
    """A place gives the header that gives the place."""
    at = place(trace, span, sampled=sampled)
    assert read_header(header_of(at)) == at
    assert (is_sampled(at), len(at)) == (sampled, 25)
    assert (int(trace_id(at), 16), int(span_id(at), 16)) == (trace, span)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-ff",
        f"cc-{TRACE}-{SPAN}-01-what-comes-later",
    ],
)
def test_whole_headers_are_followed(header: str) -> None:
    """A header of version 00, and what a later version adds behind it, names its place."""
    at = read_header(header)
    assert (trace_id(at), span_id(at), is_sampled(at)) == (TRACE, SPAN, True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-0x",
    ],
)
def test_other_headers_name_nothing(header: str) -> None:
    """What is not well formed by W3C Trace Context is as if it were not there."""
    assert read_header(header) == NOWHERE


@given(st.binary(max_size=60))
def test_stored_bytes_are_a_place_or_nothing(found: bytes) -> None:
    """Whatever lies in a stream, what is read of it is a sampled place of 25 bytes or nothing."""
    at = stored(found)
    assert at in (NOWHERE, found)
    assert at == NOWHERE or is_sampled(at)


@given(st.binary(max_size=900))
def test_stored_lists_are_places_only(found: bytes) -> None:
    """Whatever lies in a row, what is read of it are places, a bounded number of them."""
    places = unpacked(found)
    assert len(places) <= LINKS_MAX
    assert all(map(is_sampled, places))


def test_places_are_packed_once_each_and_bounded() -> None:
    """As many places as are linked at most, each once, in order, nothing of calls without one."""
    places = [place(number, number) for number in range(1, 2 * LINKS_MAX)]
    value = packed([places[0], NOWHERE, *places, *places])
    assert unpacked(value) == tuple(places[:LINKS_MAX])
    assert unpacked(value + b"x") == ()
