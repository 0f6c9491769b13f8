"""Figures that are made to be watched: usage by meter, expected revenue, and what a process is.

Guarantees: a tenant is a label only where an operator named it; what a round does not show is gone.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge

if TYPE_CHECKING:
    # Every process declares all metrics, and a sidecar needs nothing of these.
    from tallygate.ports.figures import RevenueRound, UsageRound

SPANS: Final = ("day", "month")

_Labels = tuple[str, ...]


class FigureMetrics:
    """All of it, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tallygate_{name}", text, labels, registry=registry)

        self.roles = gauge("role_info", "Always 1; its label is what the process does.", "role")
        self._units = gauge(
            "usage_units",
            "Units used by all tenants since the day's or the month's start in UTC, added up.",
            *("meter", "span"),
        )
        self._events = gauge(
            "usage_events",
            "Events of all tenants since the day's or the month's start in UTC.",
            *("meter", "span"),
        )
        self._tenants = gauge("usage_tenants", "Tenants that have used anything since.", "span")
        self._left_out = gauge(
            "usage_meters_left_out", "Meters with usage this month that are not shown."
        )
        self._named = gauge(
            "tenant_usage_units",
            "Units used since by those tenants that TALLYGATE_USAGE_FIGURES_TENANTS names.",
            *("tenant", "meter", "span"),
        )
        self._revenue = gauge(
            "revenue_preview_amount",
            "What tenants would owe for the billing periods they are in, by currency.",
            "currency",
        )
        self._rated = gauge(
            "revenue_preview_tenants",
            "Tenants that this was worked out for, and those that it could not be, by outcome.",
            "outcome",
        )
        self._age = gauge(
            "figures_age_seconds", "How long ago the last round of a figure has ended.", "figure"
        )
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}

    def used(self, day: "UsageRound", month: "UsageRound") -> None:
        """Show usage as a whole."""
        units, events, named = (
            dict[_Labels, float](),
            dict[_Labels, float](),
            dict[_Labels, float](),
        )
        for span, found in zip(SPANS, (day, month), strict=True):
            units |= {(meter, span): each.units for meter, each in found.meters.items()}
            events |= {(meter, span): each.events for meter, each in found.meters.items()}
            named |= {(*key, span): each.units for key, each in found.named.items()}
            self._tenants.labels(span).set(found.tenants)
        self._show(self._units, units)
        self._show(self._events, events)
        self._show(self._named, named)
        self._left_out.set(month.meters_left_out)

    def rated(self, found: "RevenueRound") -> None:
        """Show expected revenue as a whole."""
        amounts: dict[_Labels, float] = {
            (currency,): float(each) for currency, each in found.amounts.items()
        }
        self._show(self._revenue, amounts)
        self._rated.labels("rated").set(found.rated)
        self._rated.labels("failed").set(found.failed)

    def aged(self, figure: str, seconds: float) -> None:
        """Show how old a figure is."""
        self._age.labels(figure).set(seconds)

    def _show(self, gauge: Gauge, values: Mapping[_Labels, float]) -> None:
        """Set a gauge to exactly these values; what lasts is never away, also for a scrape."""
        for gone in self._shown.get(gauge, set()) - values.keys():
            gauge.remove(*gone)
        self._shown[gauge] = {*values}
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
