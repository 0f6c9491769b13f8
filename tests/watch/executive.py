"""The dashboard of those who look once a week: usage, money, large tenants, and health.

Owns its panels. Refuses to know how they are drawn.
"""

from typing import Final

from .panel import Dashboard, Kind, Panel, Row, Target, Unit

_NAMED: Final = 'max by (tenant, meter) (tallygate_tenant_usage_units{HERE,span="month"})'

EXECUTIVE: Final = Dashboard(
    "executive",
    "Executive",
    "How much is used, by whom, what it comes to, and whether customers can rely on it.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Calls answered", "Share of calls without a fault of ours, over 30 minutes.",
                    (Target(
                        "1 - (sum(rate(tallygate_rpc_duration_seconds_count{HERE,code=~"
                        '"UNAVAILABLE|INTERNAL|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED"}[30m]))'
                        " or vector(0))"
                        " / sum(rate(tallygate_rpc_duration_seconds_count{HERE}[30m]))",
                        "answered"),),
                    Unit.SHARE, Kind.FIGURE, 6, 0.999, less=True,
                    runbook="TallygateErrorBudgetBurnSlow",
                ),
                Panel(
                    "Tenants active today", "Tenants that have used anything since midnight, UTC.",
                    (Target('max(tallygate_usage_tenants{HERE,span="day"})', "tenants"),),
                    Unit.COUNT, Kind.FIGURE, 6,
                ),
                Panel(
                    "Tenants active this month", "Tenants that have used anything since the first.",
                    (Target('max(tallygate_usage_tenants{HERE,span="month"})', "tenants"),),
                    Unit.COUNT, Kind.FIGURE, 6,
                ),
                Panel(
                    "Accuracy", "Pairs of tenant and meter that were exact in the last daily run.",
                    (Target(
                        'min(tallygate_reconcile_accuracy_ratio{HERE,kind="daily"})', "exact"),),
                    Unit.SHARE, Kind.FIGURE, 6, 1.0, less=True, runbook="TallygateReconcileDrift",
                ),
            ),
        ),
        Row(
            "Trends",
            (
                Panel(
                    "Usage this month, by meter", "Units of all tenants since the first, UTC.",
                    (Target(
                        'max by (meter) (tallygate_usage_units{HERE,span="month"})',
                        "{{meter}}"),), width=12,
                ),
                Panel(
                    "Spend of customers", "What tenants would owe if their periods ended now.",
                    (Target(
                        "max by (currency) (tallygate_revenue_preview_amount{HERE})",
                        "{{currency}}"),), width=12, runbook="TallygateRevenueUnrated",
                ),
                Panel(
                    "Requests", "Operations a second, granted, recorded and refused by limits.",
                    (Target(
                        "sum by (outcome) (rate(tallygate_decisions_total{HERE,outcome=~"
                        '"allowed|recorded|refused"}[$__rate_interval]))', "{{outcome}}"),),
                    Unit.PER_SECOND, width=12, stacked=True,
                ),
                Panel(
                    "Usage by day, by meter", "Units since midnight, UTC: begins at 0 each day.",
                    (Target(
                        'max by (meter) (tallygate_usage_units{HERE,span="day"})', "{{meter}}"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Large tenants, of those that were named for it",
            (
                Panel(
                    "Most used this month", "The ten largest of the tenants that are named in"
                    " TALLYGATE_USAGE_FIGURES_TENANTS.",
                    (Target(f"topk(10, {_NAMED})", "{{tenant}} {{meter}}"),),
                    Unit.COUNT, Kind.BARS, 12,
                ),
                Panel(
                    "Over time", "Units of each since the first of the month, UTC.",
                    (Target(f"topk(10, {_NAMED})", "{{tenant}} {{meter}}"),), width=12,
                ),
            ),
        ),
    ),
    span="now-30d",
    refresh="15m",
)  # fmt: skip
