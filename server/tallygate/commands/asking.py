"""Who asks, and times as people write and read them.

Guarantees: times without an offset are UTC.
Refuses to know: what is asked.
"""

import getpass
from datetime import UTC, datetime

import typer
from google.protobuf.timestamp_pb2 import Timestamp


def shown(instant: Timestamp) -> str:
    """Return an instant to the second, in UTC."""
    return instant.ToDatetime().isoformat(timespec="seconds") + "Z"


def caller() -> str:
    """Return the name of whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container the user often has no name.
        raise typer.BadParameter("is required here", param_hint="--actor") from None


def instant(text: str) -> datetime:
    """Return a time as it is written in ISO 8601."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time as 2027-01-31T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def number(quantity: str) -> int | str:
    """Return a quantity as tables have it: whole, or with a fraction as it was written."""
    return quantity if "." in quantity else int(quantity)
