"""Alerts on the injector: pods that went without, and its certificate.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE
from .rule import Alert, Group, Severity, Story, series

_HERE: Final = {"cluster": "c", "namespace": "n"}
_MISSED: Final = "tallygate_injector_missed_pods"
_EXPIRY: Final = "tallygate_injector_certificate_expiry_timestamp_seconds"
_ADMISSIONS: Final = "tallygate_injector_admissions_total"

_INJECTOR: Final = (
    Alert(
        "TallygateSidecarsMissing",
        f"max by ({HERE}) ({_MISSED}) > 0",
        "10m",
        Severity.TICKET,
        "Pods run without the sidecar that they ask for",
        "{{ $value }} pods ask the injector in {{ $labels.namespace }} for a sidecar"
        " and have none.",
        Story(series(_MISSED, "0x10 3x30 0x60"), "25m", "60m", _HERE, "3"),
    ),
    Alert(
        "TallygateInjectorFailing",
        f'sum by ({HERE}) (increase({_ADMISSIONS}{{outcome=~"overloaded|failed"}}[10m])) > 0',
        "5m",
        Severity.TICKET,
        "The injector leaves questions of the API server open",
        "The injector in {{ $labels.namespace }} could not judge {{ $value }} pods in ten minutes:"
        " they start without a sidecar.",
        Story(
            series(_ADMISSIONS, "0x10 0+6x30 180x60", outcome="failed"),
            "30m", "70m", _HERE, "60",
        ),
    ),
    Alert(
        "TallygateInjectorCertificateExpiring",
        f"min by ({HERE}) ({_EXPIRY} > 0) - time() < 7 * 86400",
        "1h",
        Severity.PAGE,
        "The injector's certificate is over within a week",
        "The certificate of the injector in {{ $labels.namespace }} is over in"
        " {{ $value | humanizeDuration }}. After that pods start without sidecars.",
        Story(
            series(_EXPIRY, "180000x99 1000000x60"),
            "90m", "120m", _HERE, "2d 0h 30m 0s",
            calm_at="30m",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-injector", _INJECTOR),)
