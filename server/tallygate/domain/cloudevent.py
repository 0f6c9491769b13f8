"""CloudEvents 1.0 as they come in JSON: their attributes, checked, and their data.

Guarantees: pure; an event that exists has what usage needs, and what is wrong is told by its
attribute's name. Source and id together are what names an event, as the specification has it.
Refuses to know: how events travel, and what they mean.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from tallygate.domain.errors import InvalidField, TooManyItems
from tallygate.domain.event import text
from tallygate.domain.ids import TenantId, tenant_id
from tallygate.domain.window import from_datetime

SPEC_VERSION: Final = "1.0"
# Both are kept with each event, within what its metadata may hold.
NAME_LENGTH_MAX: Final = 512
TYPE_LENGTH_MAX: Final = 256
EVENTS_MAX: Final = 1_000
# RFC 3339, with the seconds that ISO 8601 could leave out.
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[+-]\d\d:\d\d)")
_JSON_TYPE: Final = re.compile(r"(application|text)/([a-z0-9.+-]*\+)?json\s*(;.*)?", re.IGNORECASE)

Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | int | Decimal | bool | None"


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event; `time_us` is 0 where it has no time."""

    id: str
    source: str
    type: str
    subject: TenantId
    time_us: int = 0
    data: "Json" = None

    def digest(self) -> str:
        """Return a name for the pair of source and id, of 43 characters, the same for ever."""
        # The length keeps `a` + `bc` apart from `ab` + `c`.
        named = f"{len(self.source)}:{self.source}{self.id}".encode()
        return f"ce-{hashlib.sha256(named).hexdigest()[:40]}"


def events_of(document: "Json") -> list[tuple[int, "Json"]]:
    """Return the events of a document, one or a list of them, each with its place.

    Raises `TooManyItems`, and `InvalidField` for a list of none.
    """
    if not isinstance(document, list):
        return [(0, document)]
    if not document:
        raise InvalidField("must hold at least one event", field="body")
    if len(document) > EVENTS_MAX:
        raise TooManyItems(f"must hold at most {EVENTS_MAX} events", field="body")
    return [*enumerate(document)]


def event_of(document: "Json") -> CloudEvent:
    """Return an event as it is in JSON. Raises `InvalidField` naming the attribute."""
    if not isinstance(document, Mapping):
        raise InvalidField("must be an object", field="event")
    if _text(document, "specversion", 16) != SPEC_VERSION:
        raise InvalidField(f"must be {SPEC_VERSION}", field="specversion")
    if "data_base64" in document:
        raise InvalidField("is not offered: send the data as JSON", field="data_base64")
    content = document.get("datacontenttype")
    if content is not None and not (isinstance(content, str) and _JSON_TYPE.fullmatch(content)):
        raise InvalidField("must be JSON", field="datacontenttype")
    return CloudEvent(
        id=_text(document, "id", NAME_LENGTH_MAX),
        source=_text(document, "source", NAME_LENGTH_MAX),
        type=_text(document, "type", TYPE_LENGTH_MAX),
        subject=tenant_id(_text(document, "subject", TYPE_LENGTH_MAX), "subject"),
        time_us=_time_us(document.get("time")),
        data=document.get("data"),
    )


def is_json(content_type: str) -> bool:
    """Say whether a media type is one of JSON."""
    return _JSON_TYPE.fullmatch(content_type.strip()) is not None


def _text(document: Mapping[str, "Json"], name: str, length_max: int) -> str:
    value = document.get(name)
    if value is None or value == "":
        raise InvalidField("is required", field=name)
    if not isinstance(value, str):
        raise InvalidField("must be a text", field=name)
    return text(value, name, length_max)


def _time_us(value: "Json") -> int:
    if value is None:
        return 0
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise InvalidField("must be a time as in RFC 3339: 2026-03-01T12:00:00Z", field="time")
    try:
        moment = datetime.fromisoformat(value.upper().replace(",", "."))
        return from_datetime(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        raise InvalidField("is a time that no calendar has", field="time") from None
