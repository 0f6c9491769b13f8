"""Access logs in common and combined format: what a line says, and what its events are called."""

from datetime import datetime

import pytest

from tallygate.domain import access_log
from tallygate.domain.access_log import Request
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import TenantId
from tallygate.domain.window import from_datetime

TIME_US = from_datetime(datetime.fromisoformat("2015-05-17T10:05:03+00:00"))
COMBINED = (
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /images/a.png HTTP/1.1" 200 203023'
    ' "http://example.org/" "Mozilla/5.0 (X11; \\"quoted\\")"'
)


def request(**fields: object) -> Request:
    """Return the request that most lines below log, with other fields replaced."""
    values: dict[str, object] = {
        "client": TenantId("83.149.9.216"),
        "time_us": TIME_US,
        "method": "GET",
        "path": "/a",
        "status": "200",
        "size": 10,
    }
    return Request(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


# Per case: what it is about, the line, the request.
LINES = [
    ("combined", COMBINED, request(path="/images/a.png", size=203_023)),
    (
        "common",
        '83.149.9.216 - frank [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 10',
        request(),
    ),
    (
        "a user with spaces",
        '83.149.9.216 - frank "x" y [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 10',
        request(),
    ),
    (
        "no bytes",
        '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 304 -',
        request(status="304", size=0),
    ),
    (
        "another zone",
        '83.149.9.216 - - [17/May/2015:12:05:03 +0200] "GET /a HTTP/1.0" 200 10',
        request(),
    ),
    (
        "an IPv6 client",
        '2001:db8::1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 10',
        request(client=TenantId("2001:db8::1")),
    ),
    (
        "no request",
        '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "-" 408 10',
        request(method="", path="", status="408"),
    ),
    (
        "a request that is no HTTP",
        '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "\\x16\\x03\\x01" 400 10',
        request(method="", path="", status="400"),
    ),
    (
        "quotes in a path",
        '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /\\"a\\" HTTP/1.0" 200 10',
        request(path='/\\"a\\"'),
    ),
    (
        "a path that is cut",
        f'83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /{"a" * 999} HTTP/1.0" 200 10',
        request(path="/" + "a" * 255),
    ),
]

BAD_LINES = [
    "",
    "not a log line",
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200',
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 2000 10',
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 -10',
    '83.149.9.216 - - [17/May/2015:10:05:03] "GET /a HTTP/1.0" 200 10',
    '83.149.9.216 - - [31/Feb/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 10',
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0 200 10',
    f'{"x" * 129} - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 10',
]


@pytest.mark.parametrize(
    ("line", "expected"), [pytest.param(*case[1:], id=case[0]) for case in LINES]
)
def test_a_line_says_its_request(line: str, expected: Request) -> None:
    """Client, time, method, path, status and size are read, whatever stands around them."""
    assert access_log.parse(line) == expected


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_says_none_is_refused(line: str) -> None:
    """A reason is given that quotes nothing of the line."""
    with pytest.raises(InvalidField) as caught:
        access_log.parse(line)
    assert caught.value.field in ("line", "client")
    assert "83.149" not in str(caught.value)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("unit", ["[", "\\", '"', " ", "[a] ", '[a] "'])
def test_a_hostile_line_costs_no_more_than_its_length(unit: str) -> None:
    """No line makes the parser try for minutes."""
    with pytest.raises(InvalidField):
        access_log.parse("a - - " + unit * (100_000 // len(unit)) + "\n")


def test_a_line_s_event_has_an_id_of_its_own() -> None:
    """Another log, another place, other content, another meter: another id; else the same."""
    log, other = access_log.identity(b"first\n"), access_log.identity(b"other\n")
    line = COMBINED.encode()
    found = [
        access_log.event_id(log, 0, line, "requests"),
        access_log.event_id(other, 0, line, "requests"),
        access_log.event_id(log, 1, line, "requests"),
        access_log.event_id(log, 0, line + b" ", "requests"),
        access_log.event_id(log, 0, line, "egress_bytes"),
    ]
    assert len(set(found)) == len(found)
    assert access_log.event_id(access_log.identity(b"first\n"), 0, line, "requests") == found[0]
    assert all(len(each) <= 128 and each.isascii() for each in found)
