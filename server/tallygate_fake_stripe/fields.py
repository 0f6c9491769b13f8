"""Reads an endpoint's parameters one by one, and refuses what is left.

Guarantees: a fault names its parameter as Stripe does, `payload[value]` and the like; a parameter
that nobody asked for is a 400, so that a misspelt one is found.
Refuses to know: what parameters are for.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from .errors import StripeFault, invalid, missing

METADATA_MAX: Final = 50
TEXT_MAX: Final = 5_000
_INTEGER: Final = re.compile(r"^-?\d{1,18}$")
_DECIMAL: Final = re.compile(r"^-?\d{1,20}(\.\d{1,12})?$")


class Fields:
    """The parameters of one request, or of one hash within it."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix
        # Every call may ask to expand objects; the fake answers with ids.
        self._asked = {"expand"}

    def name(self, key: str) -> str:
        """Return a parameter's full name."""
        return f"{self._prefix}[{key}]" if self._prefix else key

    def has(self, key: str) -> bool:
        """Tell whether a parameter was sent."""
        return key in self._values

    def raw(self, key: str) -> Any:  # noqa: ANN401 - text, number, list or hash, as sent
        """Return a parameter as it was sent, None where it was not."""
        self._asked.add(key)
        return self._values.get(key)

    def text(self, key: str, *, longest: int = TEXT_MAX) -> str | None:
        """Return a text, None where it was not sent or is empty. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.fault(key, "must be a string")
        if len(value) > longest:
            raise self.fault(key, f"must be at most {longest} characters", "string_too_long")
        return value

    def needed(self, key: str, *, longest: int = TEXT_MAX) -> str:
        """Return a text that must be there. Raises `StripeFault`."""
        value = self.text(key, longest=longest)
        if value is None:
            raise missing(self.name(key))
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """Return one of some words, None where it was not sent. Raises `StripeFault`."""
        value = self.text(key)
        if value is not None and value not in choices:
            raise self.fault(key, f"must be one of {', '.join(choices)}")
        return value

    def integer(self, key: str) -> int | None:
        """Return a whole number, None where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not isinstance(value, str) or not _INTEGER.match(value):
            code = "parameter_invalid_integer"
            raise invalid(f"Invalid integer: {value}", param=self.name(key), code=code)
        return int(value)

    def needed_integer(self, key: str) -> int:
        """Return a whole number that must be there. Raises `StripeFault`."""
        value = self.integer(key)
        if value is None:
            raise missing(self.name(key))
        return value

    def decimal(self, key: str) -> Decimal | None:
        """Return an exact number, None where it was not sent. Raises `StripeFault`."""
        value = self.text(key)
        if value is not None and not _DECIMAL.match(value):
            raise self.fault(key, "must be a decimal of at most 12 places")
        return None if value is None else Decimal(value)

    def flag(self, key: str) -> bool | None:
        """Return true or false, None where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return value
        if value not in {"true", "false"}:
            raise self.fault(key, "must be true or false", "parameter_invalid_boolean")
        return bool(value == "true")

    def below(self, key: str) -> "Fields":
        """Return the parameters of a hash, none where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            value = {}
        if not isinstance(value, dict):
            raise self.fault(key, "must be a hash")
        return Fields(value, self.name(key))

    def rows(self, key: str, *, most: int = 100) -> list["Fields"]:
        """Return the hashes of a list, none where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.fault(key, "must be an array of hashes")
        if len(value) > most:
            raise self.fault(key, f"must have at most {most} elements")
        name = self.name(key)
        return [Fields(each, f"{name}[{number}]") for number, each in enumerate(value)]

    def texts(self, key: str, *, most: int = 100) -> list[str]:
        """Return a list of texts, none where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            return []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.fault(key, "must be an array of strings")
        if len(value) > most:
            raise self.fault(key, f"must have at most {most} elements")
        return list(value)

    def strings(self, key: str, *, most: int = METADATA_MAX) -> dict[str, str]:
        """Return a hash of texts, empty where it was not sent. Raises `StripeFault`."""
        value = self.raw(key)
        if value is None or value == "":
            return {}
        if not isinstance(value, dict):
            raise self.fault(key, "must be a hash of strings")
        if len(value) > most:
            raise self.fault(key, f"must have at most {most} keys")
        for name, each in value.items():
            if not isinstance(each, str):
                where = f"{self.name(key)}[{name}]"
                raise invalid(f"Invalid {where}: must be a string.", param=where)
        return dict(value)

    def done(self) -> None:
        """Refuse what nobody asked for. Raises `StripeFault`."""
        for key in self._values:
            if key not in self._asked:
                name = self.name(key)
                raise invalid(
                    f"Received unknown parameter: {name}", param=name, code="parameter_unknown"
                )

    def fault(self, key: str, text: str, code: str | None = None) -> StripeFault:
        """Return a 400 for a parameter."""
        name = self.name(key)
        return invalid(f"Invalid {name}: {text}.", param=name, code=code)
