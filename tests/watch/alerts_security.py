"""Alerts on who may call: certificates, tokens, a control that asks nobody.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE
from .rule import Alert, Group, Severity, Story, series

_HERE: Final = {"cluster": "c", "namespace": "n"}
_EXPIRY: Final = "tallygate_certificate_expiry_timestamp_seconds"

_CERTIFICATES: Final = (
    Alert(
        "TallygateCertificateExpiring",
        f"min by ({HERE}, file) ({_EXPIRY} - time()) < 7 * 86400\n"
        f"unless on ({HERE}, file) max by ({HERE}, file) (changes({_EXPIRY}[1d])) > 0",
        "1h",
        Severity.TICKET,
        "A certificate is over within a week, and nothing renews it",
        "{{ $labels.file }} in {{ $labels.namespace }} is over in {{ $value | humanizeDuration }},"
        " and has not been renewed for a day.",
        Story(
            series(_EXPIRY, "180000x99 1000000x60", file="tls.crt"),
            "90m", "120m", _HERE | {"file": "tls.crt"}, "2d 0h 30m 0s",
        ),
    ),
    Alert(
        "TallygateCertificateOver",
        f"min by ({HERE}, file) ({_EXPIRY} - time()) < 900",
        "",
        Severity.PAGE,
        "A certificate is over, or is within minutes",
        "{{ $labels.file }} in {{ $labels.namespace }} has {{ $value | humanizeDuration }} left."
        " When it is over, new connections fail.",
        Story(
            series(_EXPIRY, "3600x50 9600x60", file="tls.crt"),
            "50m", "60m", _HERE | {"file": "tls.crt"}, "10m 0s",
        ),
    ),
    Alert(
        "TallygateCertificateBad",
        f"sum by ({HERE}, file) (increase(tallygate_certificate_errors_total[10m])) > 0",
        "5m",
        Severity.TICKET,
        "A certificate's file is bad",
        "{{ $labels.file }} in {{ $labels.namespace }} cannot be used; what was in use before stays"
        " in use, until it is over.",
        Story(
            series("tallygate_certificate_errors_total", "0x10 0+6x40 240x60", file="tls.crt"),
            "30m", "80m", _HERE | {"file": "tls.crt"},
        ),
    ),
)  # fmt: skip

_CALLERS: Final = (
    Alert(
        "TallygateTokenKeysUnread",
        f"max by ({HERE}) (increase(tallygate_token_keys_failures_total[10m])) > 0",
        "15m",
        Severity.TICKET,
        "The keys of tokens cannot be read",
        "Control in {{ $labels.namespace }} goes on by the keys it has; tokens of newer keys are"
        " refused.",
        Story(
            series("tallygate_token_keys_failures_total", "0x10 0+3x60 180x60"),
            "50m", "100m", _HERE,
        ),
    ),
    Alert(
        "TallygateControlOpen",
        f"max by ({HERE}, instance) (tallygate_control_open) > 0",
        "5m",
        Severity.TICKET,
        "Control answers other machines without asking who calls",
        "{{ $labels.instance }} in {{ $labels.namespace }} lets whoever reaches it change plans,"
        " grant credits and close periods.",
        Story(
            series("tallygate_control_open", "0x10 1x30 0x60"),
            "20m", "60m", _HERE | {"instance": "i:9464"},
        ),
    ),
    Alert(
        "TallygateCallersRefused",
        f"sum by ({HERE}, why) (increase(tallygate_callers_refused_total[15m])) > 0",
        "15m",
        Severity.NOTE,
        "Callers are refused that no rule allows",
        "Calls in {{ $labels.namespace }} are refused for want of {{ $labels.why }}: a rule is"
        " missing, or somebody tries.",
        Story(
            series("tallygate_callers_refused_total", "0x10 0+2x60 120x60", why="tenant"),
            "50m", "100m", _HERE | {"why": "tenant"},
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-security", _CERTIFICATES + _CALLERS),)
