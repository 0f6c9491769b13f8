"""Facts about frozen dataclasses that are made fast."""

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from tallygate.domain.quick import quick


@dataclass(frozen=True, slots=True)
class Plain:
    """A value as dataclasses makes it."""

    name: str
    units: int = 3
    marks: Mapping[str, int] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class Value:
    """The same, made fast."""

    name: str
    units: int = 3
    marks: Mapping[str, int] = field(default_factory=dict)


def test_it_is_made_like_any_dataclass() -> None:
    """By place and by name, with the defaults of its fields, and factories called anew."""
    for made in (Value("a"), Value("a", 3), Value(name="a", units=3, marks={})):
        plain = Plain("a")
        assert [getattr(made, each.name) for each in fields(Value)] == [
            getattr(plain, each.name) for each in fields(Plain)
        ]
        assert type(made) is Value
    assert Value("a").marks is not Value("a").marks


@pytest.mark.parametrize("arguments", [((), {}), (("a", 1, {}, 4), {}), (("a",), {"other": 1})])
def test_what_its_fields_do_not_take_is_refused(
    arguments: tuple[tuple[object, ...], dict[str, object]],
) -> None:
    """As a plain dataclass refuses it."""
    given, named = arguments
    for cls in (Plain, Value):
        with pytest.raises(TypeError):
            cls(*given, **named)  # type: ignore[arg-type]


def test_it_is_frozen_and_slotted() -> None:
    """No field can be set or deleted, and nothing can be added."""
    value = Value("a")
    with pytest.raises(FrozenInstanceError):
        value.name = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del value.name
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        value.other = 1  # type: ignore[attr-defined]
    assert not hasattr(value, "__dict__")


def test_equality_replacing_copying_and_matching_are_as_before() -> None:
    """An equal value is equal, whatever way it came about."""
    value = Value("a", 5, {"x": 1})
    assert value == Value("a", 5, {"x": 1}) != replace(value, units=6)
    assert repr(value) == repr(Plain("a", 5, {"x": 1})).replace("Plain", "Value")
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
        assert type(other) is Value
    match value:
        case Value(name, units):
            assert (name, units) == ("a", 5)


def test_hashes_are_those_of_the_fields() -> None:
    """So that it can be a key."""
    assert hash(Value("a", 1, ())) == hash(Value("a", 1, ()))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Later:
    """A value with a field that is not given."""

    name: str = field(init=False, default="")


def test_a_class_that_needs_more_is_refused() -> None:
    """What this cannot make is told when it is decorated."""
    with pytest.raises(TypeError):
        quick(Later)
