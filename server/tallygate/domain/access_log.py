"""Access logs in NCSA common and combined format, as usage.

Guarantees: the same line at the same place of the same log always makes the same events, with the
same ids, however often and from wherever it is read.
Refuses to know: files, and where usage is sent.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.event import CONTEXT_LENGTH_MAX
from tallygate.domain.ids import EventId, TenantId, tenant_id
from tallygate.domain.window import from_datetime

REQUESTS_METER: Final = "requests"
BYTES_METER: Final = "egress_bytes"
DIGEST_BYTES: Final = 16

_LINE = re.compile(
    r"(?P<client>\S+) \S+ .*?\[(?P<time>[^\[\]]{1,64})\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-)(?: .*)?'
)
_TIME: Final = "%d/%b/%Y:%H:%M:%S %z"
_METHOD = re.compile(r"[A-Z]{1,16}")


@dataclass(frozen=True, slots=True)
class Request:
    """One logged request. `size` is the bytes sent, 0 for none; `time_us` as it was logged."""

    client: TenantId
    time_us: int
    method: str
    path: str
    status: str
    size: int


def parse(line: str) -> Request:
    """Return the request that a line logs.

    Raises `InvalidField` saying what the line lacks.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise InvalidField("is not in NCSA common or combined format", field="line")
    try:
        # The format ends in %z, so that the time is aware.
        moment = datetime.strptime(found["time"], _TIME)  # noqa: DTZ007
    except ValueError:
        raise InvalidField("has no readable time", field="line") from None
    method, _, rest = found["request"].partition(" ")
    return Request(
        client=tenant_id(found["client"], "client"),
        time_us=from_datetime(moment),
        method=method if _METHOD.fullmatch(method) else "",
        path=rest.partition(" ")[0][:CONTEXT_LENGTH_MAX],
        status=found["status"],
        size=0 if found["size"] == "-" else int(found["size"]),
    )


def identity(first_line: bytes) -> bytes:
    """Return what tells this log from others, also when it has grown or was renamed."""
    return hashlib.blake2b(first_line, digest_size=DIGEST_BYTES).digest()


def event_id(log: bytes, offset: int, line: bytes, meter: str) -> EventId:
    """Return the id of a line's event: of this log, at this byte, with this content."""
    digest = hashlib.blake2b(line, digest_size=DIGEST_BYTES, key=log)
    digest.update(offset.to_bytes(8, "big"))
    return EventId(f"log:{digest.hexdigest()}:{meter}")
