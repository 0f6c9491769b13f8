"""Frozen dataclasses that are made as fast as plain ones, for what every call makes some of.

Guarantees: a class that is decorated behaves as before: frozen, slotted, equal and hashed by its
fields, copied and replaced like any dataclass.
Refuses to know: what the classes are for.

A frozen dataclass sets each field through `object.__setattr__`, at three times the cost of plain
assignments: with some ninety fields for a call that was a third of all its Python. Here an instance
is filled while it is of a twin class that is not frozen, and becomes frozen when it is whole.
"""

from dataclasses import MISSING, Field, fields
from typing import Any, Final, TypeVar

T = TypeVar("T")

_UNSET: Final = object()


def quick(cls: type[T]) -> type[T]:
    """Return the class, a frozen slotted dataclass, with a faster way to make its instances.

    Raises TypeError for a dataclass that it does not know how to make.
    """
    parts: tuple[Field[Any], ...] = fields(cls)  # type: ignore[arg-type]  # it is a dataclass
    strange = [each.name for each in parts if not each.init or each.kw_only]
    if strange or cls.__bases__ != (object,) or hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} is no plain frozen dataclass with slots")
    slots = cls.__dict__["__slots__"]
    names: dict[str, Any] = {
        "_new": object.__new__,
        "_twin": type(f"_Filled{cls.__name__}", (), {"__slots__": slots}),
        "_unset": _UNSET,
    }
    head, body = ["cls"], ["self = _new(_twin)"]
    for each in parts:
        value = each.name
        if each.default_factory is not MISSING:
            names[f"_make_{each.name}"] = each.default_factory
            head.append(f"{each.name}=_unset")
            value = f"_make_{each.name}() if {each.name} is _unset else {each.name}"
        elif each.default is not MISSING:
            names[f"_default_{each.name}"] = each.default
            head.append(f"{each.name}=_default_{each.name}")
        else:
            head.append(each.name)
        body.append(f"self.{each.name} = {value}")
    body += ["self.__class__ = cls", "return self"]
    text = f"def __new__({', '.join(head)}):\n " + "\n ".join(body)
    # As dataclasses does itself: a function that is spelt out is what makes it fast.
    exec(text, names)  # noqa: S102  made of the names of fields alone
    made: Any = cls
    made.__new__ = names["__new__"]
    # With a `__new__` that takes the fields, the one of object is right, and ignores them.
    del made.__init__
    made.__getnewargs__ = _values
    return cls


def _values(self: Any) -> tuple[Any, ...]:  # noqa: ANN401  whatever the fields are of
    return tuple(getattr(self, each.name) for each in fields(self))
