"""The dashboard of those who bill: accuracy, reconciliation, usage, revenue, periods, disputes.

Owns its panels. Refuses to know how they are drawn.
"""

from typing import Final

from .panel import Dashboard, Kind, Panel, Row, Target, Unit

_ON: Final = "and on (cluster, namespace, job, instance) tallygate_role_info{HERE,role="


def _of(expr: str, role: str) -> str:
    return f'({expr} {_ON}"{role}"}})'


_TRUST: Final = Row(
    "Can the numbers be trusted?",
    (
        Panel(
            "Accuracy", "Pairs of tenant and meter that were exact in the last daily run.",
            (Target(
                'min(tallygate_reconcile_accuracy_ratio{HERE,kind="daily"})', "exact"),),
            Unit.SHARE, Kind.FIGURE, 6, 1.0, less=True, runbook="TallygateReconcileDrift",
        ),
        Panel(
            "Completeness", "Share of all that was accepted and is accounted for, or on its way.",
            (Target(
                "1 - max(" + _of("(tallygate_completeness_lost{HERE}"
                " + tallygate_completeness_unaccounted{HERE})", "ingest") + ") / (max("
                + _of("tallygate_completeness_accepted{HERE}", "ingest") + ") > 0)", "settled"),),
            Unit.SHARE, Kind.FIGURE, 6, 1.0, less=True, runbook="TallygateCompletenessBelowOne",
        ),
        Panel(
            "Last reconciliation", "How long ago the last daily run ended.",
            (Target("max(" + _of("tallygate_reconcile_age_seconds{HERE}", "control") + ")",
                    "age"),),
            Unit.SECONDS, Kind.FIGURE, 6, 172_800, runbook="TallygateReconcileOld",
        ),
        Panel(
            "Usage in the ledger is behind by", "Age of the oldest usage that the ledger lacks.",
            (Target("max(" + _of("tallygate_ingest_lag_seconds{HERE}", "ingest") + ")", "lag"),),
            Unit.SECONDS, Kind.FIGURE, 6, 900, runbook="TallygateIngestLagHigh",
        ),
        Panel(
            "Pairs by verdict", "Pairs of tenant, meter and period in the last daily run.",
            (Target(
                "max by (verdict) (tallygate_reconcile_pairs{HERE})", "{{verdict}}"),),
            Unit.COUNT, Kind.BARS, 8, runbook="TallygateReconcileDriftOpen",
        ),
        Panel(
            "Units that are off, by step", "Where drift began, too many and too few added up.",
            (Target("max by (step) (tallygate_reconcile_drift_units{HERE})", "{{step}}"),),
            Unit.COUNT, Kind.BARS, 8, 1, runbook="TallygateReconcileDrift",
        ),
        Panel(
            "Accuracy around invoices", "Pairs exact before and after invoices, of 35 days.",
            (Target(
                "min by (kind) (tallygate_reconcile_accuracy_ratio{HERE})", "{{kind}}"),),
            Unit.SHARE, runbook="TallygateReconcileDrift",
        ),
    ),
)  # fmt: skip

_USED: Final = Row(
    "Usage and expected revenue",
    (
        Panel(
            "Usage today, by meter", "Units of all tenants since midnight, UTC, added up.",
            (Target('max by (meter) (tallygate_usage_units{HERE,span="day"})', "{{meter}}"),),
        ),
        Panel(
            "Usage this month, by meter", "Units of all tenants since the first, UTC, added up.",
            (Target('max by (meter) (tallygate_usage_units{HERE,span="month"})', "{{meter}}"),),
        ),
        Panel(
            "Events this month, by meter", "Events of all tenants since the first, UTC.",
            (Target('max by (meter) (tallygate_usage_events{HERE,span="month"})', "{{meter}}"),),
        ),
        Panel(
            "Revenue preview", "What tenants would owe if their current periods ended now.",
            (Target(
                "max by (currency) (tallygate_revenue_preview_amount{HERE})", "{{currency}}"),),
            width=12, runbook="TallygateRevenueUnrated",
        ),
        Panel(
            "Tenants rated", "Tenants whose preview was worked out, and those it could not be.",
            (Target(
                "max by (outcome) (tallygate_revenue_preview_tenants{HERE})", "{{outcome}}"),),
            Unit.COUNT, Kind.BARS, 6, runbook="TallygateRevenueUnrated",
        ),
        Panel(
            "These figures are as old as", "Since the last round over all tenants.",
            (Target("min by (figure) (tallygate_figures_age_seconds{HERE})", "{{figure}}"),),
            Unit.SECONDS, Kind.BARS, 6, 3_600, runbook="TallygateLoopFailing",
        ),
    ),
)  # fmt: skip

_BILLED: Final = Row(
    "Periods and invoices",
    (
        Panel(
            "Billing periods by state", "Open, in their grace, being closed, closed.",
            (Target("max by (state) (tallygate_periods{HERE})", "{{state}}"),),
            Unit.COUNT, Kind.BARS, 8, runbook="TallygatePeriodsOverdue",
        ),
        Panel(
            "Invoices due and held", "Closed periods to be invoiced; of these, those that cannot.",
            (
                Target("max(" + _of("tallygate_invoices_due{HERE}", "control") + ")", "due"),
                Target("max by (reason) (tallygate_invoices_held{HERE})", "held: {{reason}}"),
            ), runbook="TallygateInvoicesHeld",
        ),
        Panel(
            "Held for", "How long the longest period, and the longest invoice, has been held.",
            (
                Target("max(" + _of("tallygate_periods_held_age_seconds{HERE}", "control") + ")",
                       "period"),
                Target("max(" + _of("tallygate_invoices_held_age_seconds{HERE}", "control") + ")",
                       "invoice"),
            ), Unit.SECONDS, bad=3_600, runbook="TallygatePeriodsOverdue",
        ),
        Panel(
            "Invoices issued", "In the time shown: first ones, and revisions.",
            (Target(
                "sum by (kind) (increase(tallygate_invoices_issued_total{HERE}[$__range]))",
                "{{kind}}"),), Unit.COUNT, Kind.BARS, 8, runbook="TallygateInvoicesHeld",
        ),
        Panel(
            "Usage on its way to Stripe", "Sends that are not done, by state.",
            (Target(
                "max by (destination, state) (tallygate_stripe_open{HERE})",
                "{{destination}} {{state}}"),), runbook="TallygateStripeRejected",
        ),
        Panel(
            "Oldest usage that Stripe lacks", "Stripe takes usage for 35 days.",
            (Target(
                "max by (destination) (tallygate_stripe_oldest_seconds{HERE})",
                "{{destination}}"),), Unit.SECONDS, bad=86_400, runbook="TallygateStripeBehind",
        ),
    ),
)  # fmt: skip

_DISPUTED: Final = Row(
    "Disputes: what was taken back, came late, or was unusual",
    (
        Panel(
            "Taken back", "Events refunded, a second.",
            (Target(
                'sum(rate(tallygate_decisions_total{HERE,outcome="refunded"}[$__rate_interval]))',
                "refunds"),), Unit.PER_SECOND, width=6,
        ),
        Panel(
            "Refused by limits", "Operations a second that a limit refused: what customers ask of.",
            (Target(
                'sum(rate(tallygate_decisions_total{HERE,outcome="refused"}[$__rate_interval]))',
                "refusals"),), Unit.PER_SECOND, width=6,
        ),
        Panel(
            "Unusual hours", "Hours of a tenant's usage unlike the weeks before.",
            (Target(
                "sum by (direction) (increase(tallygate_anomalies_total{HERE}[$__range]))",
                "{{direction}}"),), Unit.COUNT, Kind.BARS, 6,
        ),
        Panel(
            "Not billed", "Dead letters by reason, in the time shown.",
            (Target(
                "sum by (reason) (increase(tallygate_events_dead_letter_total{HERE}[$__range]))",
                "{{reason}}"),), Unit.COUNT, Kind.BARS, 6, 1, runbook="TallygateDeadLetters",
        ),
    ),
)  # fmt: skip

FINANCE: Final = Dashboard(
    "finance",
    "Finance",
    "Whether usage is counted right, and what it comes to.",
    (_TRUST, _USED, _BILLED, _DISPUTED),
    span="now-7d",
    refresh="5m",
)
