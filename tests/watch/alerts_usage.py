"""Alerts on usage on its way to the ledger: missing, late, refused, or not taken.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE, of_role, role, worst
from .rule import Alert, Group, Recording, Severity, Story, series

_LAG: Final = "tallygate:ingest_lag_seconds:max"
_SETTLED: Final = "tallygate:completeness_settled:ratio"


def _settled() -> str:
    """Return the share of numbers given out that are, or still may be, accounted for.

    What is in flight is not missing: under load the plain ratio is always a little below 1.
    """
    given = of_role("tallygate_completeness_accepted", "ingest")
    gone = of_role("(tallygate_completeness_lost + tallygate_completeness_unaccounted)", "ingest")
    return f"1 - max by ({HERE}) ({gone})\n  / (max by ({HERE}) ({given}) > 0)"


RECORDED: Final = Group(
    "tallygate-usage-recorded",
    (
        Recording(_LAG, worst("tallygate_ingest_lag_seconds", "ingest")),
        Recording(_SETTLED, _settled()),
        Recording(
            "tallygate:completeness:ratio",
            f"min by ({HERE}) ({of_role('tallygate_completeness_ratio', 'ingest')})",
        ),
        *(
            Recording(
                f"tallygate:events_{what}:rate5m",
                f"sum by ({HERE}) (rate(tallygate_events_{what}_total[5m]))",
            )
            for what in ("accepted", "persisted")
        ),
    ),
)

_COMPLETE: Final = (
    Alert(
        "TallygateCompletenessBelowOne",
        f"{_SETTLED} < 1",
        "5m",
        Severity.PAGE,
        "Accepted usage is missing from the ledger",
        "Of all usage that was ever accepted in {{ $labels.namespace }}, {{ $value"
        " | humanizePercentage }} is accounted for; the rest is nowhere, or was lost.",
        Story(
            role("ingest")
            | series("tallygate_completeness_accepted", "1000x120")
            | series("tallygate_completeness_lost", "0x120")
            | series("tallygate_completeness_unaccounted", "0x10 250x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "75%",
        ),
    ),
    Alert(
        "TallygateCompletenessUnknown",
        f"{worst('tallygate_completeness_age_seconds', 'ingest')} > 300",
        "5m",
        Severity.TICKET,
        "Nobody compares what was accepted with the ledger",
        "The last comparison in {{ $labels.namespace }} is {{ $value | humanizeDuration }} old:"
        " usage could go missing unseen.",
        Story(
            role("ingest")
            | series("tallygate_completeness_age_seconds", "2x10 600x30 2x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "10m 0s",
        ),
    ),
    Alert(
        "TallygateSourceGap",
        f"{worst('tallygate_source_gaps', 'ingest')} > 0",
        "10m",
        Severity.TICKET,
        "The ledger misses ranges of a source's numbers",
        "{{ $value }} ranges of sequence numbers in {{ $labels.namespace }} have not arrived though"
        " later ones have.",
        Story(
            role("ingest") | series("tallygate_source_gaps", "0x10 2x30 0x60"),
            "25m", "60m", {"cluster": "c", "namespace": "n"}, "2",
        ),
    ),
)  # fmt: skip

_LATE: Final = (
    Alert(
        "TallygateIngestLag",
        f"{_LAG} > 60",
        "5m",
        Severity.TICKET,
        "The ledger is behind",
        "The oldest accepted usage that the ledger of {{ $labels.namespace }} lacks is"
        " {{ $value | humanizeDuration }} old. Decisions go on.",
        Story(
            role("ingest") | series("tallygate_ingest_lag_seconds", "0x10 120x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "2m 0s",
        ),
    ),
    Alert(
        "TallygateIngestLagHigh",
        f"{_LAG} > 900",
        "5m",
        Severity.PAGE,
        "The ledger is far behind, and the streams fill",
        "The oldest accepted usage that the ledger of {{ $labels.namespace }} lacks is"
        " {{ $value | humanizeDuration }} old; streams and journals hold all since.",
        Story(
            role("ingest") | series("tallygate_ingest_lag_seconds", "0x10 1800x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "30m 0s",
        ),
    ),
    Alert(
        "TallygateStreamsFull",
        f"max by ({HERE}) (tallygate_streams_full) > 0",
        "1m",
        Severity.PAGE,
        "Streams are full: limits follow their outage rules",
        "{{ $value }} shards in {{ $labels.namespace }} hold as many entries as they may. Nothing"
        " is added to them: the limits' on_outage rules decide, RecordUsage goes into journals.",
        Story(
            series("tallygate_streams_full", "0x10 3x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n"}, "3",
        ),
    ),
)  # fmt: skip

_REFUSED: Final = (
    Alert(
        "TallygateDeadLetters",
        f"sum by ({HERE}, reason) (increase(tallygate_events_dead_letter_total[30m])) > 0",
        "",
        Severity.TICKET,
        "Usage went to the dead letters",
        "Usage in {{ $labels.namespace }} was kept as a dead letter in the last half hour:"
        " {{ $labels.reason }}. It is not billed.",
        Story(
            series("tallygate_events_dead_letter_total", "0x10 7x120", reason="unstorable"),
            "15m", "60m", {"cluster": "c", "namespace": "n", "reason": "unstorable"},
        ),
    ),
    Alert(
        "TallygateUsageLost",
        f"sum by ({HERE}) (increase(tallygate_outage_lost_total[1h])"
        " + increase(tallygate_lease_lost_total[1h])) > 0",
        "",
        Severity.PAGE,
        "A process ended with usage that nothing else has",
        "Operations that a process in {{ $labels.namespace }} had granted were lost with it in the"
        " last hour: that much was used and will not be billed.",
        Story(
            series("tallygate_outage_lost_total", "0x10 5x120")
            | series("tallygate_lease_lost_total", "0x130"),
            "15m", "90m", {"cluster": "c", "namespace": "n"},
        ),
    ),
)  # fmt: skip

_JOURNAL: Final = (
    Alert(
        "TallygateJournalFilling",
        f"max by ({HERE}, instance) (tallygate_journal_bytes / tallygate_journal_max_bytes) > 0.8",
        "5m",
        Severity.TICKET,
        "A sidecar's journal fills",
        "The journal of {{ $labels.instance }} takes {{ $value | humanizePercentage }} of what it"
        " may; when it is full, no reply promises JOURNAL any more.",
        Story(
            series("tallygate_journal_bytes", "10x10 90x30 10x60")
            | series("tallygate_journal_max_bytes", "100x120"),
            "20m", "60m",
            {"cluster": "c", "namespace": "n", "instance": "i:9464"}, "90%",
        ),
    ),
    Alert(
        "TallygateJournalUnwell",
        f"max by ({HERE}, instance) (tallygate_journal_state) > 0",
        "1m",
        Severity.PAGE,
        "A sidecar's journal takes no entries",
        "The journal of {{ $labels.instance }} is full (1) or its disk fails (2): {{ $value }}."
        " Redis alone keeps its usage; when both are gone, calls are refused.",
        Story(
            series("tallygate_journal_state", "0x10 2x30 0x60"),
            "20m", "60m", {"cluster": "c", "namespace": "n", "instance": "i:9464"}, "2",
        ),
    ),
    Alert(
        "TallygateJournalUnconfirmed",
        f"max by ({HERE}, instance) (tallygate_journal_oldest_seconds) > 900",
        "5m",
        Severity.TICKET,
        "A sidecar's journal is not confirmed",
        "The oldest entry in the journal of {{ $labels.instance }} has waited for the ledger for"
        " {{ $value | humanizeDuration }}.",
        Story(
            series("tallygate_journal_oldest_seconds", "0x10 1800x30 0x60"),
            "20m", "60m",
            {"cluster": "c", "namespace": "n", "instance": "i:9464"}, "30m 0s",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (RECORDED, Group("tallygate-usage", _COMPLETE + _LATE + _REFUSED + _JOURNAL))
