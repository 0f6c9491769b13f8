"""The bounds of an event's texts and dimensions."""

import pytest

from tallygate.domain import event as bounds
from tallygate.domain.errors import InvalidField


@pytest.mark.parametrize("value", ["", "x" * 256, "東京 😀\n\t", "\U0010ffff"])
def test_a_text_within_bounds_is_itself(value: str) -> None:
    """Whatever every store can hold passes unchanged."""
    assert bounds.text(value, "context.region") == value


@pytest.mark.parametrize("value", ["x" * 257, "\x00", "a\x00b", "\ud800", "a\udfff"])
def test_a_text_that_a_store_cannot_hold_is_refused(value: str) -> None:
    """NUL and lone surrogates would block a whole batch in Postgres."""
    with pytest.raises(InvalidField) as caught:
        bounds.text(value, "context.region")
    assert caught.value.field == "context.region"


def test_dimensions_within_bounds_are_copied() -> None:
    """16 keys of 64 and values of 256 characters pass, as a mapping of their own."""
    given = {f"{n:02d}".ljust(64, "k"): "v" * 256 for n in range(16)}
    found = bounds.dimensions(given)
    assert found == given
    assert found is not given


# Per case: what it is about, the dimensions, the field that the error names.
BAD_DIMENSIONS = [
    ("17 keys", {str(n): "" for n in range(17)}, "items[1].dimensions"),
    ("an empty key", {"": "x"}, "items[1].dimensions"),
    ("a key too long", {"k" * 65: "x"}, f"items[1].dimensions['{'k' * 64}']"),
    ("a value too long", {"path": "x" * 257}, "items[1].dimensions['path']"),
    ("NUL in a key", {"a\x00": "x"}, "items[1].dimensions['a\\x00']"),
    ("NUL in a value", {"path": "\x00"}, "items[1].dimensions['path']"),
    ("a surrogate in a value", {"path": "\ud800"}, "items[1].dimensions['path']"),
]


@pytest.mark.parametrize(
    ("given", "field"), [pytest.param(*case[1:], id=case[0]) for case in BAD_DIMENSIONS]
)
def test_dimensions_out_of_bounds_are_refused_by_key(given: dict[str, str], field: str) -> None:
    """The error names the key, itself cut to a length and safe to print."""
    with pytest.raises(InvalidField) as caught:
        bounds.dimensions(given, "items[1].dimensions")
    assert caught.value.field == field
    assert "\x00" not in str(caught.value)
