"""Alerts on what leaves for destinations and for Stripe.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE, worst
from .rule import Alert, Group, Severity, Story, series

_AT: Final = {"cluster": "c", "namespace": "n", "destination": "billing"}

_OUTBOX: Final = (
    Alert(
        "TallygateOutboxAge",
        f"max by ({HERE}, destination) (tallygate_outbox_age_seconds) > 900",
        "5m",
        Severity.TICKET,
        "Messages wait for a destination",
        "The oldest message for {{ $labels.destination }} in {{ $labels.namespace }} has waited for"
        " {{ $value | humanizeDuration }}.",
        Story(
            series("tallygate_outbox_age_seconds", "0x10 1800x30 0x60", destination="billing"),
            "20m", "60m", _AT, "30m 0s",
        ),
    ),
    Alert(
        "TallygateMessagesParked",
        f"max by ({HERE}, destination) (tallygate_outbox_parked) > 0",
        "5m",
        Severity.TICKET,
        "Messages were given up on",
        "{{ $value }} messages for {{ $labels.destination }} in {{ $labels.namespace }} were tried"
        " so often that somebody has to look at them.",
        Story(
            series("tallygate_outbox_parked", "0x10 3x30 0x60", destination="billing"),
            "20m", "60m", _AT, "3",
        ),
    ),
    Alert(
        "TallygateOutboxHeldBack",
        f"{worst('tallygate_outbox_gate_lag_seconds', 'relay')} > 300",
        "5m",
        Severity.TICKET,
        "An open transaction holds back readers of the outbox",
        "Whoever tails the outbox of {{ $labels.namespace }} has seen nothing new for"
        " {{ $value | humanizeDuration }}. Deliveries by relays go on.",
        Story(
            series("tallygate_role_info", "1x120", role="relay")
            | series("tallygate_outbox_gate_lag_seconds", "0x10 600x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "10m 0s",
        ),
    ),
)  # fmt: skip

_STRIPE: Final = (
    Alert(
        "TallygateStripeRejected",
        f'max by ({HERE}, destination, state) (tallygate_stripe_open{{state=~"rejected|too_old"}})'
        " > 0",
        "5m",
        Severity.PAGE,
        "Stripe rejected usage, or it became too old for it",
        "{{ $value }} sends to {{ $labels.destination }} are {{ $labels.state }}, left to you;"
        " that usage is not on any invoice of Stripe's.",
        Story(
            series(
                "tallygate_stripe_open", "0x10 2x30 0x60", destination="billing", state="rejected"
            ),
            "20m", "60m", _AT | {"state": "rejected"}, "2",
        ),
    ),
    Alert(
        "TallygateStripeReportedErrors",
        f"sum by ({HERE}, destination) (increase(tallygate_stripe_reported_errors_total[1h])) > 0",
        "",
        Severity.TICKET,
        "Stripe reported errors in usage that it had taken",
        "Stripe told {{ $labels.destination }} of errors in the last hour, after it had answered"
        " that all was well.",
        Story(
            series("tallygate_stripe_reported_errors_total", "0x10 4x120", destination="billing"),
            "15m", "90m", _AT,
        ),
    ),
    Alert(
        "TallygateStripeHeldBack",
        f"max by ({HERE}, destination, reason) (tallygate_stripe_held_back) > 0",
        "15m",
        Severity.TICKET,
        "Nothing is sent to Stripe",
        "Nothing goes out to {{ $labels.destination }}: {{ $labels.reason }}.",
        Story(
            series(
                "tallygate_stripe_held_back", "0x10 1x40 0x60",
                destination="billing", reason="key_refused",
            ),
            "40m", "80m", _AT | {"reason": "key_refused"},
        ),
    ),
    Alert(
        "TallygateStripeBehind",
        f"max by ({HERE}, destination) (tallygate_stripe_oldest_seconds) > 86400",
        "15m",
        Severity.TICKET,
        "Usage reaches Stripe late",
        "The oldest usage that {{ $labels.destination }} has not taken is"
        " {{ $value | humanizeDuration }} old; Stripe takes none older than 35 days.",
        Story(
            series("tallygate_stripe_oldest_seconds", "9x10 172800x40 9x60", destination="billing"),
            "40m", "80m", _AT, "2d 0h 0m 0s",
        ),
    ),
    Alert(
        "TallygateStripeTooLate",
        f"max by ({HERE}, destination) (tallygate_stripe_late) > 0",
        "5m",
        Severity.PAGE,
        "Usage is about to become too old for Stripe",
        "{{ $value }} sends to {{ $labels.destination }} are of usage older than 30 days; after 35"
        " Stripe takes it no more.",
        Story(
            series("tallygate_stripe_late", "0x10 6x30 0x60", destination="billing"),
            "20m", "60m", _AT, "6",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-delivery", _OUTBOX + _STRIPE),)
