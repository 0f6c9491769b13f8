"""Billing periods over a real channel and by command, as operators meet them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from tallygate.cli import app
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.period import PeriodKey
from tallygate.domain.period_digest import Covered
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.gen.v1 import period_pb2
from tallygate.ports import LedgerBatch
from tallygate.ports.period import Sealing, Span
from tests.api.control import NOW, Control, controlled
from tests.periods.world import ACME, REQUESTS
from tests.sidecar import failure
from tests.usage_events import event

# Of a newer client: field 2 holds a state that nobody knows.
ODD_STATE = period_pb2.ListPeriodsRequest.FromString(b"\x10\x09")
START = NOW - NOW % DAY_US - 3 * DAY_US


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control where acme has a period in its grace and one that lasts."""
    async with controlled() as found:
        at = {"event_time_us": START + HOUR_US}
        await found.ledger.persist(LedgerBatch((event(1, amount=7, **at),)))
        span = Span(PeriodKey(ACME, START), START + DAY_US)
        await found.periods.add([span, Span(PeriodKey(ACME, span.end_us), NOW + DAY_US)], NOW)
        await found.periods.end({span: NOW + HOUR_US}, [], NOW)
        yield found


async def close(control: Control, *meters: Meter) -> None:
    """Close what is due, as the loop does."""
    periods = control.periods
    due = [
        PeriodKey(each.period.tenant_id, each.period.start_us)
        for each in (await periods.due(NOW, 9))
    ]
    await periods.seal(Sealing(due, {meter.name: meter for meter in meters}, NOW))
    for revision in await periods.unfinished(9):
        await periods.close(
            revision, Covered(1, b"\x01" * 32, {}), await periods.fold(revision), NOW
        )


def asked(kind: Callable[..., Any], **fields: object) -> Any:
    """Return a request about acme's first period, with a reason."""
    values = {"tenant_id": ACME, "reason": "the invoice is due", "actor": "ada", **fields}
    request = kind(**values)
    if request.HasField("start"):
        return request
    request.start.FromMicroseconds(START)
    return request


async def test_a_period_is_closed_read_and_reopened(control: Control) -> None:
    """What was asked, by whom and why, is read beside what was frozen."""
    asked_for = await control.stub.ClosePeriod(asked(period_pb2.ClosePeriodRequest))
    assert asked_for.period.state == period_pb2.PERIOD_STATE_GRACE
    assert asked_for.period.due.ToMicroseconds() == NOW
    await close(control)
    story = await control.stub.GetPeriod(period_pb2.GetPeriodRequest(tenant_id=ACME))
    assert (story.period.state, story.period.revision) == (period_pb2.PERIOD_STATE_CLOSED, 1)
    assert [(each.meter, each.quantity, each.count) for each in story.totals] == [
        (REQUESTS, "7", 1)
    ]
    assert [(each.number, each.cause, each.digest) for each in story.revisions] == [
        (1, "grace_over", "01" * 32)
    ]
    reopened = await control.stub.ReopenPeriod(asked(period_pb2.ReopenPeriodRequest))
    assert reopened.period.state == period_pb2.PERIOD_STATE_GRACE
    late = event(2, amount=5, event_time_us=START)
    await control.ledger.persist(LedgerBatch((late,)))
    story = await control.stub.GetPeriod(period_pb2.GetPeriodRequest(tenant_id=ACME))
    assert [(each.action, each.actor) for each in story.actions] == [
        ("close", "ada"),
        ("reopen", "ada"),
    ]
    assert [(each.placed, each.allocated_revision, each.events) for each in story.late] == [
        ("reopened", 2, 1)
    ]


async def test_groups_come_in_pages(control: Control) -> None:
    """Each group has its number, of levels with a fraction; pages are of one revision."""
    at_us, count = START + DAY_US - 500_000, 1_005
    await control.ledger.persist(
        LedgerBatch(
            tuple(
                event(
                    10 + number,
                    amount=3,
                    event_time_us=at_us,
                    dimensions={"user": f"{number:05}"},
                )
                for number in range(count)
            )
        )
    )
    await control.stub.ClosePeriod(asked(period_pb2.ClosePeriodRequest))
    await close(control, Meter(REQUESTS, Aggregation.TIME_WEIGHTED, group_by=("user",)))
    request = period_pb2.GetPeriodRequest(tenant_id=ACME)
    first = await control.stub.GetPeriod(request)
    assert len(first.totals) == 1_000
    request.page_token = first.next_page_token
    await control.stub.ReopenPeriod(asked(period_pb2.ReopenPeriodRequest))
    last = await control.stub.GetPeriod(request)
    assert not last.next_page_token
    found = {each.group["user"]: each.quantity for each in (*first.totals, *last.totals)}
    assert found.pop("") == str(7 * 23 * 3_600)
    assert len(found) == count
    assert set(found.values()) == {"1.5"}
    request.revision = 2
    refused = await failure(control.stub.GetPeriod(request))
    assert "page_token" in str(refused)


async def test_periods_come_in_pages(control: Control) -> None:
    """Pages follow each other, and miss none; states and tenants narrow them."""
    found = []
    request = period_pb2.ListPeriodsRequest(page_size=1)
    for _ in range(2):
        page = await control.stub.ListPeriods(request)
        found += [each.start.ToMicroseconds() for each in page.periods]
        request.page_token = page.next_page_token
    assert found == [START, START + DAY_US]
    assert not request.page_token
    for narrowed, count in (
        ({"state": period_pb2.PERIOD_STATE_OPEN}, 1),
        ({"tenant_id": "other"}, 0),
        ({"held": True}, 0),
    ):
        page = await control.stub.ListPeriods(period_pb2.ListPeriodsRequest(**narrowed))
        assert len(page.periods) == count


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (asked(period_pb2.ClosePeriodRequest, reason=" "), "INVALID_ARGUMENT", "reason"),
        (asked(period_pb2.ReopenPeriodRequest, actor=""), "INVALID_ARGUMENT", "actor"),
        (asked(period_pb2.ReopenPeriodRequest, reason="x" * 257), "INVALID_ARGUMENT", "reason"),
        (asked(period_pb2.ReopenPeriodRequest), "FAILED_PRECONDITION", "start"),
        (asked(period_pb2.ClosePeriodRequest, tenant_id="other"), "NOT_FOUND", "start"),
        (period_pb2.ClosePeriodRequest(tenant_id=ACME), "INVALID_ARGUMENT", "start"),
        (period_pb2.GetPeriodRequest(tenant_id="other"), "NOT_FOUND", "start"),
        (period_pb2.GetPeriodRequest(tenant_id=ACME, revision=1), "NOT_FOUND", "revision"),
        (
            period_pb2.GetPeriodRequest(tenant_id=ACME, page_token="WzEsIDIsICJ4Il0="),
            *("INVALID_ARGUMENT", "page_token"),
        ),
        (ODD_STATE, "INVALID_ARGUMENT", "state"),
        (period_pb2.ListPeriodsRequest(page_token="eA=="), "INVALID_ARGUMENT", "page_token"),
    ],
)
async def test_what_is_wrong_is_named(
    control: Control, request_: Any, code: str, field: str
) -> None:
    """A request that cannot be done is refused by the field at fault."""
    found = await failure(control.call(request_))
    assert found.code.name == code
    assert field in str(found)


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command."""

    exit_code: int
    stdout: str
    stderr: str


async def command(control: Control, *words: str) -> Ran:
    """Run a command against the control, from a thread, as it has a loop of its own."""

    def invoked() -> Ran:
        line = ["period", *words, "--control-address", control.address]
        result = CliRunner().invoke(app, line)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return await asyncio.to_thread(invoked)


def sheet(result: Ran, title: str) -> Sequence[dict[str, object]]:
    """Return a sheet of a command's JSON."""
    found: Sequence[dict[str, object]] = json.loads(result.stdout)[title]
    return found


async def test_commands_show_and_reopen(control: Control) -> None:
    """Lists and stories come as tables and JSON; what is refused ends with 1 and one line."""
    start = "2026"
    listed = await command(control, "list", "--json")
    start = str(sheet(listed, "periods")[0]["start"])
    assert [each["state"] for each in sheet(listed, "periods")] == ["grace", "open"]
    assert "grace" in (await command(control, "list")).stdout
    words = ("reopen", ACME, start, "--reason", "why", "--actor", "ada")
    refused = await command(control, *words)
    assert (refused.exit_code, "cannot reopen" in refused.stderr) == (1, True)
    waiting = await command(
        control, "close", ACME, start, "--reason", "why", "--actor", "ada", "--wait-s", "0"
    )
    assert waiting.exit_code == 1
    await close(control)
    shown = await command(control, "show", ACME, "--json")
    assert sheet(shown, "totals") == [{"meter": "requests", "group": "", "quantity": 7, "count": 1}]
    reopened = await command(control, *words, "--json")
    assert (reopened.exit_code, sheet(reopened, "periods")[0]["state"]) == (0, "grace")
    assert (await command(control, "list", "--state", "shut")).exit_code == 2
