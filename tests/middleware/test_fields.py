"""What is told of limits and of errors, without a server."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallygate_client import Decision, LimitStatus
from tallygate_client.errors import (
    Closed,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from tallygate_client.metering import Measured, Question, WebRequest, WebRules
from tallygate_client.metering.answers import answer_of, problem_of
from tallygate_client.metering.cost import Cost, Ending
from tallygate_client.metering.fields import INTEGER_MAX, LIMITS_MAX, fields_of
from tallygate_client.results import LimitState
from tallygate_client.values import Item

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RULES = WebRules(
    tenant="x-tenant",
    response_bytes=Measured("egress_bytes", 1),
    windows={"monthly": 2_678_400},
)


def limit(name: str = "monthly", **fields: Any) -> LimitStatus:
    """Return a limit of 100 requests of which 41 are left, with other fields replaced."""
    values: dict[str, Any] = {
        "limit_id": name,
        "meter": "requests",
        "state": LimitState.OK,
        "used": 59,
        "limit": 100,
        "remaining": 41,
        "resets_at": NOW + timedelta(seconds=16.2),
        "tenant_id": "acme",
        "scope": "",
        "unlimited": False,
    }
    return LimitStatus(**{**values, **fields})


def told(*limits: LimitStatus, **fields: Any) -> dict[str, str]:
    """Return the fields of a decision over these limits."""
    decision = Decision(allowed=not fields.get("refused_by"), limits=limits, **fields)
    return dict(fields_of(decision, NOW, RULES))


def test_fields_are_as_the_draft_has_them() -> None:
    """Policies say what is fixed, standings what is left and until when, in the same order."""
    bytes_left = limit("egress", meter="egress_bytes", resets_at=None, scope="region=eu")
    assert told(limit(), bytes_left) == {
        "RateLimit-Policy": '"monthly";q=100;w=2678400,'
        '"egress";q=100;qu="content-bytes";pk=:cmVnaW9uPWV1:',
        "RateLimit": '"monthly";r=41;t=17,"egress";r=41;pk=:cmVnaW9uPWV1:',
    }


def test_only_limits_in_force_are_told() -> None:
    """Neither what has no bound, nor what only observes; of a name's several the tightest."""
    unlimited = limit("unlimited", unlimited=True)
    shadow = limit("shadow", state=LimitState.SHADOW_EXCEEDED)
    parent = limit(tenant_id="group", remaining=7)
    assert told(unlimited, shadow, limit(), parent)["RateLimit"] == '"monthly";r=7;t=17'
    assert told(unlimited, shadow) == {}
    many = told(*(limit(f"l{number}") for number in range(30)))
    assert many["RateLimit"].count("r=41") == LIMITS_MAX


def test_the_refusing_limit_comes_first_and_waits_as_retry_after() -> None:
    """Its wait is the one after which the same call passes, and no other limit's."""
    refused = told(limit(), limit("rate", remaining=0), refused_by="rate", retry_after=0.2)
    assert refused["RateLimit"] == '"rate";r=0;t=1,"monthly";r=41;t=17'


@given(st.text(max_size=40), st.integers(0, 2**53 - 1), st.text(min_size=1, max_size=20))
def test_whatever_a_limit_is_called_can_be_parsed(name: str, left: int, scope: str) -> None:
    """Strings are printable ASCII with their quotes escaped; integers have fifteen digits."""
    field = told(limit(name, remaining=left, scope=scope))["RateLimit"]
    assert field.isascii()
    assert field.isprintable()
    body, _, parameters = field[1:].rpartition('";r=')
    plain = body.replace("\\\\", "").replace('\\"', "")
    assert '"' not in plain
    assert "\\" not in plain
    assert int(parameters.partition(";")[0]) == min(left, INTEGER_MAX)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Unavailable("away", retry_after=2.1), 503, "metering-unavailable"),
        (Closed("closed"), 503, "metering-unavailable"),
        (InvalidRequest("bad", field="tenant_id"), 400, "tenant-invalid"),
        (InvalidRequest("bad", field="items[0].amount"), 500, "metering-failed"),
        (NotFound("who", reason="UNKNOWN_TENANT"), 403, "tenant-refused"),
        (FailedPrecondition("no", reason="TENANT_SUSPENDED"), 403, "tenant-refused"),
        (NotFound("what", reason="UNKNOWN_METER"), 500, "metering-failed"),
        (QuotaExceeded(Decision(allowed=False, refused_by="monthly")), 429, "quota-exceeded"),
    ],
)
def test_errors_have_their_answers(error: Exception, status: int, kind: str) -> None:
    """Each error has one status and one type; what is the operator's is told to them alone."""
    answer = answer_of(error, WebRequest("GET", "/", {}, None), RULES)
    problem = json.loads(answer.body)
    assert (answer.status, problem["status"]) == (status, status)
    assert problem["type"].endswith(kind)
    assert str(error) not in answer.body.decode()
    head = answer_of(error, WebRequest("HEAD", "/", {}, None), RULES)
    assert (head.body, dict(head.headers)) == (b"", dict(answer.headers))


def test_waits_are_whole_seconds() -> None:
    """A wait is rounded up, and of what can never pass there is none."""
    assert problem_of(Unavailable("away", retry_after=2.1)).retry_after == 3
    assert problem_of(QuotaExceeded(Decision(allowed=False))).retry_after is None


class Hold:
    """Stands for a reservation; notes how it was settled."""

    def __init__(self) -> None:
        self.settled: list[object] = []

    def commit(self, amounts: list[int] | None) -> None:
        """Note the amounts."""
        self.settled.append(amounts)

    def release(self) -> None:
        """Note it."""
        self.settled.append("released")


@pytest.mark.parametrize(
    ("ending", "charged", "settled"),
    [
        (Ending.COMPLETE, True, [1, 7]),
        (Ending.COMPLETE, False, "released"),
        (Ending.FAILED, None, "released"),
        (Ending.FAILED, True, "released"),
        (Ending.LEFT, None, "released"),
        (Ending.LEFT, False, "released"),
        (Ending.LEFT, True, [1, 7]),
    ],
)
def test_ends_settle_as_the_table_says(ending: Ending, charged: bool | None, settled: Any) -> None:
    """Each end of a request commits or releases, and only the first does anything."""
    hold = Hold()
    items = (Item("requests", 1), Item("tokens", 500))
    cost = Cost(Question("acme", items), Decision(allowed=True), hold)
    cost.add("tokens", 3)
    cost.add("tokens", 4)
    for _ in range(2):
        settling = cost.settle(ending, charged)
        for each in settling(None) if settling else ():
            each()
    assert hold.settled == [settled]


def test_amounts_are_whole_and_of_the_request() -> None:
    """What is said of a cost is checked as it is said, and names the meter."""
    cost = Cost(Question("acme", (Item("tokens", 5),)), Decision(allowed=True), Hold())
    with pytest.raises(ValueError, match="'tokns'"):
        cost.add("tokns", 1)
    with pytest.raises(TypeError, match="float"):
        cost.set("tokens", 1.5)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(ValueError, match="at least 0"):
        cost.set("tokens", -1)
    charged = Cost(Question("acme", (Item("tokens", 5),), "consume"), Decision(allowed=True))
    with pytest.raises(ValueError, match="charged already"):
        charged.set("tokens", 1)
