"""Error reports: what was wrong with usage that had been taken, told some time later.

Guarantees: every such event is counted in exactly one report, by its meter and code; a report names
a few of them only, by the Idempotency-Key of the request they came in, as Stripe's do.
Refuses to know: what was wrong, and how reports travel.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .clock import US_PER_S, rfc3339
from .objects import Meter, MeterEvent
from .tables import Json

if TYPE_CHECKING:
    from .world import World

REPORTED: Final = "v1.billing.meter.error_report_triggered"
NO_METER: Final = "v1.billing.meter.no_meter_found"


@dataclass(slots=True)
class _Kind:
    count: int = 0
    samples: list[Json] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    start_us: int
    kinds: dict[str, _Kind] = field(default_factory=lambda: defaultdict(_Kind))


class Reports:
    """The reports of one account that are being filled."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._open: dict[str | None, _Open] = {}

    def add(
        self, event: MeterEvent, meter: Meter | None, code: str, message: str, now_us: int
    ) -> None:
        """Have the next report of a meter tell of an event."""
        name = meter.id if meter else None
        report = self._open.get(name)
        if report is None:
            report = self._open[name] = _Open(now_us)
            due_us = now_us + round(self._world.behaviour.report_every_s * US_PER_S)
            self._world.schedule.at(due_us, lambda at_us: self._send(name, at_us))
        kind = report.kinds[code]
        kind.count += 1
        if len(kind.samples) < self._world.behaviour.report_samples_max:
            named = event.idempotency_key or event.identifier
            kind.samples.append({"error_message": message, "request": {"identifier": named}})

    def _send(self, meter: str | None, now_us: int) -> None:
        report = self._open.pop(meter)
        total = sum(kind.count for kind in report.kinds.values())
        data = {
            "developer_message_summary": f"There are {total} invalid events",
            "reason": {
                "error_count": total,
                "error_types": [
                    {"code": code, "error_count": kind.count, "sample_errors": kind.samples}
                    for code, kind in report.kinds.items()
                ],
            },
            "validation_start": rfc3339(report.start_us),
            "validation_end": rfc3339(now_us),
        }
        kind = NO_METER if meter is None else REPORTED
        self._world.notices.tell(kind, now_us, meter=meter, details=data)
