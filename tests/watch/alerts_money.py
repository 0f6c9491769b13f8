"""Alerts on what becomes of usage: reconciliation, periods, invoices, credits, the audit log.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE, role, worst
from .rule import Alert, Group, Severity, Story, series

_CHECKED: Final = 'tallygate_reconcile_checked_pairs_total{verdict="drift"}'
_HERE: Final = {"cluster": "c", "namespace": "n"}
_DRIFTING: Final = 'tallygate_reconcile_pairs{verdict="drift"}'

_RECONCILED: Final = (
    Alert(
        "TallygateReconcileDrift",
        f"sum by ({HERE}, kind) (increase({_CHECKED}[1h])) > 0",
        "",
        Severity.PAGE,
        "A step from counter to money does not agree with the ledger",
        "Reconciliation ({{ $labels.kind }}) found pairs of tenant and meter that drift in"
        " {{ $labels.namespace }}.",
        Story(
            series(
                "tallygate_reconcile_checked_pairs_total", "0x10 3x120",
                kind="daily", verdict="drift",
            ),
            "15m", "90m", _HERE | {"kind": "daily"},
        ),
    ),
    Alert(
        "TallygateReconcileDriftOpen",
        f"{worst(_DRIFTING, 'control')} > 0",
        "1h",
        Severity.TICKET,
        "Drift that was found is not repaired",
        "{{ $value }} pairs of tenant and meter drifted in the last daily run of"
        " {{ $labels.namespace }}.",
        Story(
            role("control")
            | series("tallygate_reconcile_pairs", "0x10 2x100 0x90", verdict="drift"),
            "90m", "150m", _HERE, "2",
        ),
    ),
    Alert(
        "TallygateReconcileOld",
        f"{worst('tallygate_reconcile_age_seconds', 'control')} > 172800",
        "30m",
        Severity.TICKET,
        "Nothing was reconciled for two days",
        "The last daily reconciliation of {{ $labels.namespace }} ended {{ $value"
        " | humanizeDuration }} ago.",
        Story(
            role("control")
            | series("tallygate_reconcile_age_seconds", "5x10 259200x60 5x90"),
            "50m", "120m", _HERE, "3d 0h 0m 0s",
        ),
    ),
)  # fmt: skip

_BILLED: Final = (
    Alert(
        "TallygatePeriodsOverdue",
        f"{worst('tallygate_periods_held_age_seconds', 'control')} > 3600",
        "5m",
        Severity.TICKET,
        "Billing periods are overdue",
        "A billing period in {{ $labels.namespace }} whose grace is over has been held for"
        " {{ $value | humanizeDuration }}; its invoice waits.",
        Story(
            role("control")
            | series("tallygate_periods_held_age_seconds", "0x10 7200x30 0x60"),
            "20m", "60m", _HERE, "2h 0m 0s",
        ),
    ),
    Alert(
        "TallygateInvoicesHeld",
        f"{worst('tallygate_invoices_held_age_seconds', 'control')} > 3600",
        "5m",
        Severity.TICKET,
        "Invoices are held",
        "The invoice of a closed period in {{ $labels.namespace }} has been held for"
        " {{ $value | humanizeDuration }}.",
        Story(
            role("control")
            | series("tallygate_invoices_held_age_seconds", "0x10 7200x30 0x60"),
            "20m", "60m", _HERE, "2h 0m 0s",
        ),
    ),
    Alert(
        "TallygateInvoicesUnsendable",
        f"sum by ({HERE}, destination)"
        " (increase(tallygate_stripe_unsendable_invoices_total[1h])) > 0",
        "",
        Severity.TICKET,
        "An invoice cannot be told to Stripe",
        "An issued invoice has an amount that Stripe has no unit for; {{ $labels.destination }}"
        " never hears of it.",
        Story(
            series(
                "tallygate_stripe_unsendable_invoices_total", "0x10 1x120", destination="billing"
            ),
            "15m", "90m", _HERE | {"destination": "billing"},
        ),
    ),
    Alert(
        "TallygateRevenueUnrated",
        f'max by ({HERE}) (tallygate_revenue_preview_tenants{{outcome="failed"}}) > 0',
        "1h",
        Severity.NOTE,
        "Some tenants' invoices cannot be worked out",
        "{{ $value }} tenants in {{ $labels.namespace }} could not be rated; their invoices would"
        " be held at the end of their periods.",
        Story(
            series("tallygate_revenue_preview_tenants", "0x10 2x100 0x60", outcome="failed"),
            "90m", "140m", _HERE, "2",
        ),
    ),
    Alert(
        "TallygateCreditsWaiting",
        f"max by ({HERE}, reason) (tallygate_credit_balances_waiting) > 0",
        "15m",
        Severity.TICKET,
        "Prepaid credits do not reach the counters",
        "{{ $value }} balances in {{ $labels.namespace }} lack grants that were made:"
        " {{ $labels.reason }}.",
        Story(
            series("tallygate_credit_balances_waiting", "0x10 2x40 0x60", reason="limit"),
            "40m", "80m", _HERE | {"reason": "limit"}, "2",
        ),
    ),
    Alert(
        "TallygateAuditUnrecorded",
        f"sum by ({HERE}) (increase(tallygate_audit_unrecorded_total[1h])"
        " + increase(tallygate_audit_refused_total[1h])) > 0",
        "",
        Severity.TICKET,
        "The audit log lacks what came of calls, or refused some",
        "In the last hour {{ $labels.namespace }} had admin calls that the audit log does not have"
        " the end of, or that were refused as it could not keep up.",
        Story(
            series("tallygate_audit_unrecorded_total", "0x10 1x120")
            | series("tallygate_audit_refused_total", "0x130"),
            "15m", "90m", _HERE,
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-money", _RECONCILED + _BILLED),)
