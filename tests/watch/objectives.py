"""What callers may expect, and alerts on how fast the room for errors is spent.

Owns the objectives and the windows. The scheme, two windows for each burn rate, is that of "The
Site Reliability Workbook" (2018), chapter 5. Refuses to know how rules are written down.
"""

from dataclasses import dataclass
from typing import Final

from .asked import HERE
from .rule import Alert, Group, Recording, Severity, Story, series

AVAILABLE: Final = "0.001"
"""Of a thousand calls, one may fail: 43 minutes of 30 days."""

SWIFT: Final = "0.01"
"""Of a hundred calls that are answered, one may take longer than `SWIFT_S`."""

SWIFT_S: Final = "0.02"
"""Seconds; a bound of the histogram's."""

FAULTS: Final = "UNAVAILABLE|INTERNAL|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED"
"""A refusal by a limit is an answer, and so is a fault of the caller's."""

CALLS: Final = r'method=~".*(Quota|Usage)Service/.*",method!~".*/(Watch|Stream).*"'
"""Streams last as long as their callers like."""

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """A rate, as a multiple of what lasts 30 days, and the two windows that must both be above."""

    rate: str
    long: str
    short: str
    severity: Severity


BURNS: Final = (
    Burn("14.4", "1h", "5m", Severity.PAGE),
    Burn("6", "6h", "30m", Severity.PAGE),
    Burn("3", "1d", "2h", Severity.TICKET),
    Burn("1", "3d", "6h", Severity.TICKET),
)


def _failed(window: str) -> str:
    faults = f'tallygate_rpc_duration_seconds_count{{{CALLS},code=~"{FAULTS}"}}'
    every = f"tallygate_rpc_duration_seconds_count{{{CALLS}}}"
    # Without a fault ever seen there is no series of faults: that is none, and not unknown.
    none = f"0 * sum by ({HERE}) (rate({every}[{window}]))"
    return (
        f"(sum by ({HERE}) (rate({faults}[{window}])) or {none})\n"
        f"  / (sum by ({HERE}) (rate({every}[{window}])) > 0)"
    )


def _slow(window: str) -> str:
    answered = f'{CALLS},code="OK"'
    swift = f'tallygate_rpc_duration_seconds_bucket{{{answered},le="{SWIFT_S}"}}'
    every = f"tallygate_rpc_duration_seconds_count{{{answered}}}"
    return (
        f"1 - sum by ({HERE}) (rate({swift}[{window}]))\n"
        f"  / (sum by ({HERE}) (rate({every}[{window}])) > 0)"
    )


def _burns(
    name: str, record: str, room: str, stories: dict[Severity, Story], what: str
) -> list[Alert]:
    """Return two alerts: the room is gone within days, or before its 30 days are over."""
    spent = {Severity.PAGE: ("Fast", "within days"), Severity.TICKET: ("Slow", "too soon")}
    return [
        Alert(
            name + spent[severity][0],
            "\nor ignoring (window)\n".join(
                _burning(record, room, each) for each in BURNS if each.severity is severity
            ),
            "2m",
            severity,
            f"{what}: the room that 30 days have is spent {spent[severity][1]}",
            "Over {{ $labels.window }} in {{ $labels.namespace }}, {{ $value"
            f" | humanizePercentage }}}} of the calls were affected; {room} of all may be.",
            story,
        )
        for severity, story in stories.items()
    ]


def _burning(record: str, room: str, burn: Burn) -> str:
    most = f"{burn.rate} * {room}"
    both = f"{record}{burn.long} > {most} and {record}{burn.short} > {most}"
    return f'label_replace({both}, "window", "{burn.long}", "", "")'


_AT: Final = {"cluster": "c", "namespace": "n", "method": "tallygate.v1.QuotaService/Check"}


def _count(code: str, values: str) -> dict[str, str]:
    return series("tallygate_rpc_duration_seconds_count", values, **_AT, code=code)


def _swift(values: str) -> dict[str, str]:
    return series("tallygate_rpc_duration_seconds_bucket", values, **_AT, code="OK", le=SWIFT_S)


_FAILS: Final = {
    # All is well for an hour, then half of the calls fail for half an hour.
    Severity.PAGE: Story(
        _count("OK", "0+1000x60 60000+500x30 75000+1000x120")
        | _count("UNAVAILABLE", "0x60 0+500x30 15000x120"),
        "90m", "130m", {"cluster": "c", "namespace": "n", "window": "1h"}, "24.58%", calm_at="50m",
    ),
    # One in two hundred fails for two hours: five times what may.
    Severity.TICKET: Story(
        _count("OK", "0+1990x120 238800+2000x600") | _count("INTERNAL", "0+10x120 1200x600"),
        "120m", "600m", {"cluster": "c", "namespace": "n", "window": "1d"}, "0.5%", calm_at="1m",
    ),
}  # fmt: skip
_SLOW: Final = {
    Severity.PAGE: Story(
        _count("OK", "0+1000x210") | _swift("0+1000x60 60000+500x30 75000+1000x120"),
        "90m", "130m", {"cluster": "c", "namespace": "n", "window": "1h"}, "25.83%", calm_at="50m",
    ),
    Severity.TICKET: Story(
        _count("OK", "0+1000x720") | _swift("0+950x120 114000+1000x600"),
        "120m", "600m", {"cluster": "c", "namespace": "n", "window": "1d"}, "5%", calm_at="1m",
    ),
}  # fmt: skip

RECORDED: Final = Group(
    "tallygate-objectives-recorded",
    tuple(
        Recording(f"tallygate:{what}:ratio_rate{window}", of(window))
        for what, of in (("calls_failed", _failed), ("calls_slow", _slow))
        for window in WINDOWS
    ),
)

BUDGETS: Final = Group(
    "tallygate-objectives",
    (
        *_burns(
            "TallygateErrorBudgetBurn", "tallygate:calls_failed:ratio_rate", AVAILABLE, _FAILS,
            "Calls fail",
        ),
        *_burns(
            "TallygateLatencyBudgetBurn", "tallygate:calls_slow:ratio_rate", SWIFT, _SLOW,
            "Calls are slow",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (RECORDED, BUDGETS)
