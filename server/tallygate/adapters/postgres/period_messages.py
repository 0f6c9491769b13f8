"""The messages about billing periods, built once.

Guarantees: `period.closed` is written in the transaction that closes a revision, once for each.
Refuses to know: how messages are sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.adapters.postgres.messages import Message, as_json, shown_time, tell
from tallygate.adapters.postgres.pool import Lent
from tallygate.domain.period import Group, MeterTotal
from tallygate.domain.period_digest import Covered
from tallygate.domain.rollup import digits
from tallygate.ports.period import Adjustment, BillingPeriod, SealedRevision

PERIOD_CLOSED: Final = "period.closed"
PERIOD_HELD: Final = "period.held"
PERIOD_REOPENED: Final = "period.reopened"
# What webhook endpoints take without complaint; the rest is read by `GetPeriod`.
ROWS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Billed:
    """What a revision bills: its own totals, and what it bills of periods closed before."""

    totals: Sequence[MeterTotal]
    adjustments: Sequence[Adjustment]


async def tell_closed(
    connection: Lent,
    revision: SealedRevision,
    covered: Covered,
    billed: Billed,
    now_us: int,
) -> None:
    """Write that a revision was closed, with its totals, where that is wanted."""
    totals, adjustments = billed.totals, billed.adjustments
    data: dict[str, object] = {
        **_named(revision.span.key.tenant_id, revision.span.key.start_us, revision.span.end_us),
        "revision": revision.revision,
        "cause": revision.cause.value,
        "events": covered.events,
        "sha256": covered.digest.hex(),
        "totals": [
            {
                "meter": each.meter,
                **_group(each.group),
                "aggregation": each.aggregation.value,
                "quantity": digits(each.quantity),
                "count": each.figures.count,
            }
            for each in totals[:ROWS_MAX]
        ],
        "adjustments": [
            {
                "meter": each.meter,
                **_group(each.group),
                "quantity": digits(each.quantity),
                "count": each.count,
                **_closed(each),
            }
            for each in adjustments[:ROWS_MAX]
        ],
    }
    if max(len(totals), len(adjustments)) > ROWS_MAX:
        data["truncated"] = True
    await tell(connection, [_message(PERIOD_CLOSED, revision.span.key.tenant_id, data, now_us)])


async def tell_held(connection: Lent, periods: Sequence[BillingPeriod], now_us: int) -> None:
    """Write that periods are held, and why."""
    await tell(
        connection,
        [
            _message(
                PERIOD_HELD,
                each.tenant_id,
                {
                    **_named(each.tenant_id, each.start_us, each.end_us),
                    "revision": each.revision,
                    "reason": each.held.value if each.held else "",
                    "due": shown_time(each.due_us),
                },
                now_us,
            )
            for each in periods
        ],
    )


async def tell_reopened(
    connection: Lent, period: BillingPeriod, actor: str, reason: str, now_us: int
) -> None:
    """Write that a period takes usage again, by whom and why."""
    data: dict[str, object] = {
        **_named(period.tenant_id, period.start_us, period.end_us),
        "revision": period.revision,
        "actor": actor,
        "reason": reason,
        "due": shown_time(period.due_us),
    }
    await tell(connection, [_message(PERIOD_REOPENED, period.tenant_id, data, now_us)])


def _named(tenant_id: str, start_us: int, end_us: int) -> dict[str, object]:
    return {"tenant_id": tenant_id, "start": shown_time(start_us), "end": shown_time(end_us)}


def _group(group: Group) -> dict[str, object]:
    return {"group": dict(group)} if group else {}


def _closed(adjustment: Adjustment) -> dict[str, object]:
    at = adjustment.closed_start_us
    return {} if at is None else {"closed_start": shown_time(at)}


def _message(kind: str, tenant_id: str, data: Mapping[str, object], now_us: int) -> Message:
    payload = {"type": kind, "timestamp": shown_time(now_us), "data": data}
    return Message("tenant", tenant_id, kind, as_json(payload).encode())
