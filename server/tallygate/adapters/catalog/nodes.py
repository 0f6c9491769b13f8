"""Reading YAML nodes into plain values, every fault kept with its line and path.

Guarantees: reading never raises for what a document holds; what is wrong is recorded and None, or
an empty value, stands in its place, so that one pass finds everything.
Refuses to know: what the values are for.

A scalar is taken as it is written: `no` is a text and `010` is no number, whatever YAML says. No
quantity ever passes through a float.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tallygate.domain.catalog import PPM, UNLIMITED
from tallygate.domain.errors import Fault
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.path_fault import closest
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, from_datetime, zone_of

Choice = TypeVar("Choice", bound=StrEnum)

TEXT_LENGTH_MAX: Final = 256
PROSE_LENGTH_MAX: Final = 1024
DURATION_US_MAX: Final = 3_660 * DAY_US
# A billing anchor outside these years is a slip of the pen, and far ones have no calendar.
YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2199

_UNITS: Final = {"d": DAY_US, "h": HOUR_US, "m": MINUTE_US, "s": SECOND_US}
_DURATION: Final = re.compile(r"([0-9]{1,8})([dhms])")
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*(_[0-9]+)*")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RATIO: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?|\.[0-9]{1,6}")
_NULLS: Final = ("", "~", "null", "Null", "NULL")


class Reader:
    """Collects faults, and remembers on which line each path stands."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.lines: dict[str, int] = {}

    def fault(self, node: Node, path: str, message: str, suggestion: str = "") -> None:
        """Record a fault at a node."""
        self.faults.append(Fault(_line(node), path, message, suggestion))

    def mapping(
        self,
        node: Node | None,
        path: str,
        known: Collection[str] | None = None,
        planned: Collection[str] = (),
    ) -> dict[str, Node]:
        """Return a mapping's values by key; keys that are twice or not `known` are faults.

        A key that is `planned` has its own message: the document is not wrong, but early.
        """
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, MappingNode):
            self.fault(node, path, "must be a mapping")
            return {}
        found: dict[str, Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else ""
            if not key or not key.isprintable():
                self.fault(key_node, path, "has a key that is not a printable text")
                continue
            at = f"{path}.{key}" if path else key
            if key in found:
                self.fault(key_node, at, f"is there twice, first on line {self.lines[at]}")
            elif key in planned:
                self.fault(key_node, at, "is reserved: not offered yet")
            elif known is not None and key not in known:
                self.fault(key_node, at, f"there is no {key!r} here", closest(key, known))
            else:
                self.lines[at] = _line(key_node)
                found[key] = value
        return found

    def needed(self, parts: Mapping[str, Node], name: str, node: Node, path: str) -> Node | None:
        """Return a part; that there is none is a fault of `node`, which holds the parts."""
        if name not in parts:
            self.fault(node, f"{path}.{name}", "is required")
        return parts.get(name)

    def sequence(self, node: Node | None, path: str) -> Iterator[tuple[Node, str]]:
        """Iterate over a list's nodes with their paths."""
        if node is None or _is_null(node):
            return
        if not isinstance(node, SequenceNode):
            self.fault(node, path, "must be a list")
            return
        for index, item in enumerate(node.value):
            at = f"{path}[{index}]"
            self.lines[at] = _line(item)
            yield item, at

    def text(self, node: Node | None, path: str, length_max: int = TEXT_LENGTH_MAX) -> str:
        """Return a text, empty where there is none."""
        if node is None:
            return ""
        if not isinstance(node, ScalarNode):
            self.fault(node, path, "must be a text")
            return ""
        value = str(node.value)
        if _is_null(node):
            self.fault(node, path, "is empty: give it a value, or leave it out")
            return ""
        if len(value) > length_max:
            self.fault(node, path, f"must be at most {length_max} characters")
            return ""
        # Postgres cannot hold NUL, and a log or a header no other control character either.
        if not value.isprintable():
            self.fault(node, path, "holds a character that cannot be printed")
            return ""
        return value

    def prose(self, node: Node | None, path: str) -> str:
        """Return a text for people: line breaks and runs of blanks become one blank."""
        if isinstance(node, ScalarNode):
            node.value = " ".join(node.value.split())
        return self.text(node, path, PROSE_LENGTH_MAX)

    def integer(self, node: Node | None, path: str, default: int = 0) -> int:
        """Return a whole number; `10_000` is one, `1e4`, `1.0`, `010` and `"10"` are not."""
        if node is None:
            return default
        value = self.text(node, path)
        if not value:
            return default
        if not _is_plain(node):
            self.fault(node, path, f"must be a whole number, without quotes: {value!r}")
        elif not _INTEGER.fullmatch(value):
            self.fault(node, path, f"must be a whole number, not {value!r}")
        elif abs(number := int(value)) > AMOUNT_MAX:
            self.fault(node, path, f"must be at most {AMOUNT_MAX}")
        else:
            return number
        return default

    def integers(self, node: Node | None, path: str) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        return tuple(self.integer(item, at) for item, at in self.sequence(node, path))

    def quantity(self, node: Node | None, path: str, default: int = 0) -> int:
        """Return a whole number, or `UNLIMITED` where that is written."""
        if node is not None and _is_plain(node) and node.value == "unlimited":
            return UNLIMITED
        return self.integer(node, path, default)

    def flag(self, node: Node | None, path: str) -> bool:
        """Return whether it is `true`; nothing means `false`."""
        if node is None:
            return False
        value = self.text(node, path)
        if value not in ("", "true", "false"):
            self.fault(node, path, f"must be true or false, not {value!r}")
        return value == "true"

    def choice(
        self,
        node: Node | None,
        path: str,
        kind: type[Choice],
        *,
        default: Choice,
    ) -> Choice:
        """Return one of an enumeration's values."""
        if node is None:
            return default
        value = self.text(node, path)
        values = [member.value for member in kind]
        if value in values:
            return kind(value)
        if value:
            message = f"must be {_either(values)}, not {value!r}"
            self.fault(node, path, message, closest(value, values))
        return default

    def ratios_ppm(self, node: Node | None, path: str) -> tuple[int, ...]:
        """Return a list of ratios in parts per million."""
        return tuple(
            ratio
            for item, at in self.sequence(node, path)
            if (ratio := self._ratio_ppm(item, at)) is not None
        )

    def duration_us(self, node: Node | None, path: str, default: int) -> int:
        """Return a duration such as `35d`, `12h`, `30m` or `10s`, in microseconds."""
        if node is None:
            return default
        found = _DURATION.fullmatch(self.text(node, path))
        duration_us = int(found[1]) * _UNITS[found[2]] if found else 0
        if not 0 < duration_us <= DURATION_US_MAX:
            message = "must be a duration above 0 such as 35d, 12h, 30m or 10s, at most 3660d"
            self.fault(node, path, message)
            return default
        return duration_us

    def instant_us(self, node: Node | None, path: str, time_zone: str) -> int:
        """Return a date, or a date and time, in microseconds; in `time_zone` where it names none.

        Without a node, it is midnight of 1 January 1970 in the zone: billing periods are then the
        calendar's months.
        """
        value = "1970-01-01" if node is None else self.text(node, path)
        try:
            text = f"{value}T00:00:00" if _DATE.fullmatch(value) else value
            moment = datetime.fromisoformat(text)
        except ValueError:
            if node is not None and value:
                self.fault(node, path, "must be a date, or a date and time, as in ISO 8601")
            return 0
        if node is not None and not YEAR_MIN <= moment.year <= YEAR_MAX:
            self.fault(node, path, f"must be in a year from {YEAR_MIN} to {YEAR_MAX}")
            return 0
        if moment.tzinfo is None:
            try:
                moment = moment.replace(tzinfo=zone_of(time_zone))
            except (KeyError, ValueError, OSError):
                # The zone is told as its own fault.
                moment = moment.replace(tzinfo=UTC)
        return from_datetime(moment)

    def _ratio_ppm(self, node: Node, path: str) -> int | None:
        value = self.text(node, path)
        if _RATIO.fullmatch(value) and _is_plain(node):
            return int(Decimal(value) * PPM)
        if value:
            message = f"must be a ratio such as 0.8, with at most 6 decimals, not {value!r}"
            self.fault(node, path, message)
        return None


def _either(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"one of {', '.join(values)}"


def _is_plain(node: Node) -> bool:
    return isinstance(node, ScalarNode) and not node.style


def _is_null(node: Node) -> bool:
    return _is_plain(node) and node.value in _NULLS


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
