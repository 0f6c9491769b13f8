"""What is exported: the columns of events and of rollups, and how their values are written.

Guarantees: pure; numbers are written as they are, whole and without an exponent; an instant has all
its microseconds; a row has as many values as its table has columns.
Refuses to know: files and formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.window import to_datetime


class Kind(StrEnum):
    """What a column holds. A sum may be larger than 64 bits; JSON comes as its text."""

    TEXT = "text"
    INTEGER = "integer"
    SUM = "sum"
    INSTANT = "instant"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and kind; where `optional`, a value may be None."""

    name: str
    kind: Kind = Kind.TEXT
    optional: bool = False


class Subject(StrEnum):
    """What is exported."""

    EVENTS = "events"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


Value = str | int | None
Row = Sequence[Value]

EVENT_COLUMNS: Final = (
    Column("tenant_id"),
    Column("event_id"),
    Column("meter"),
    Column("amount", Kind.INTEGER),
    Column("event_time", Kind.INSTANT),
    Column("received_at", Kind.INSTANT),
    Column("operation_id"),
    Column("source_id"),
    Column("source_lane", Kind.INTEGER),
    Column("source_seq", Kind.INTEGER),
    Column("counter_epoch"),
    Column("schema_version", Kind.INTEGER),
    Column("subject_id"),
    Column("resource_id"),
    Column("session_id"),
    Column("region"),
    Column("sku"),
    Column("correlation_id"),
    Column("sdk"),
    Column("dimensions", Kind.JSON),
    Column("metadata", Kind.JSON, optional=True),
    Column("refund_of"),
    Column("reservation_id"),
)
ROLLUP_COLUMNS: Final = (
    Column("tenant_id"),
    Column("meter"),
    Column("bucket", Kind.INSTANT),
    Column("count", Kind.INTEGER),
    Column("sum", Kind.SUM),
    Column("max", Kind.INTEGER),
    Column("min", Kind.INTEGER),
)


def columns_of(subject: Subject) -> tuple[Column, ...]:
    """Return the columns of what is exported."""
    return EVENT_COLUMNS if subject is Subject.EVENTS else ROLLUP_COLUMNS


def instant_text(instant_us: int) -> str:
    """Return an instant in RFC 3339 with six digits of a second, so that texts sort as instants."""
    return to_datetime(instant_us).isoformat(timespec="microseconds").replace("+00:00", "Z")
