"""A month is due once all of it is older than the policy says, and is kept for each reason."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.errors import InvalidField
from tallygate.domain.retention import (
    VERDICTS,
    MonthFacts,
    Policy,
    Verdict,
    due_before_us,
    reason_of,
    verdict,
)
from tallygate.domain.window import from_datetime, to_datetime

NOW_US = from_datetime(datetime(2026, 11, 22, 3, 4, 5, 6, tzinfo=UTC))
POLICY = Policy(event_months=14)
DUE = MonthFacts(
    month_us=from_datetime(datetime(2025, 8, 1, tzinfo=UTC)),
    leaf="usage_event_202508",
    events=5,
    elsewhere=0,
    archive_id="a",
    file="f",
    file_sha256="00",
    archived=5,
    holds=0,
    unclosed=0,
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Verdict.DROP),
        ({"archived": None}, Verdict.ARCHIVE),
        ({"archived": 4}, Verdict.CHANGED),
        ({"holds": 1, "archived": None}, Verdict.HELD),
        ({"unclosed": 1}, Verdict.OPEN),
        ({"elsewhere": 1}, Verdict.MIXED),
        ({"leaf": ""}, Verdict.MIXED),
        ({"month_us": from_datetime(datetime(2025, 9, 1, tzinfo=UTC))}, Verdict.KEEP),
    ],
)
def test_each_reason_has_its_verdict(changed: dict[str, object], expected: Verdict) -> None:
    """Age comes first, then who keeps it, then whether it is archived."""
    facts = replace(DUE, **changed)  # type: ignore[arg-type]  # fields by name
    assert verdict(facts, POLICY, NOW_US) is expected
    assert verdict(facts, Policy(), NOW_US) is Verdict.KEEP
    assert VERDICTS[expected]


@given(
    # From 1990 to 2200.
    st.integers(631_152_000_000_000, 7_258_118_400_000_000),
    st.integers(1, 240),
)
def test_a_due_month_is_older_than_the_policy(now_us: int, months: int) -> None:
    """The boundary is a month's start, and so many whole months lie between it and this one."""
    now, boundary = to_datetime(now_us), to_datetime(due_before_us(now_us, months))
    assert (boundary.day, boundary.hour, boundary.minute) == (1, 0, 0)
    assert (boundary.second, boundary.microsecond) == (0, 0)
    assert (now.year * 12 + now.month) - (boundary.year * 12 + boundary.month) == months


@pytest.mark.parametrize("text", ["", "  ", "x" * 501, "a\x00b"])
def test_reasons_say_something(text: str) -> None:
    """An empty, a very long or an unstorable reason is refused by field."""
    with pytest.raises(InvalidField) as raised:
        reason_of(text, "--reason")
    assert raised.value.field == "--reason"
    assert reason_of("case 7", "--reason") == "case 7"
