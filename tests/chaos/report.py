"""`docs/soak.md`: what a soak was, what befell it, and what the oracle said.

Owns the page's form. Guarantees that everything on it comes from one run. Refuses to judge.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from tests.chaos.gauges import GROWTH_FILES_MAX, GROWTH_MB_PER_MINUTE_MAX
from tests.chaos.outcome import Outcome

MEANS: Final[Mapping[str, str]] = {
    "I1": "Counters and rollups equal the ledger's sums.",
    "I2": "Hard limits were not passed; in outages by no more than the published budgets.",
    "I3": "Each accepted event is in the ledger once, and was told the destination in one message.",
    "I4": "The same operation id was told the same.",
    "I5": "Accepted = persisted + in the stream + in the journal + known to be lost.",
    "I6": "After healing, nothing waits any more.",
    "I7": "Nobody was shown or charged what is another tenant's.",
    "I8": "No secret stands in a reply, a message or a log.",
    "answers": "Every call got an answer that its caller may expect.",
    "exits": "No process ended by itself, and all ended with 0 when told to.",
    "memory": (
        f"Of processes that lived through it all, memory rose by less than"
        f" {GROWTH_MB_PER_MINUTE_MAX:g} MB a minute, open files by at most {GROWTH_FILES_MAX}."
    ),
}

HEAD: Final = """\
# Soak

Mixed load on a whole installation of real processes while one fault follows the other; then all is
healed, and the oracle reads what callers were told, the ledger, counters, the outbox, what the
destination took, and the logs. Made by `make soak`; do not edit.

"""

MEMORY: Final = """\
Of the processes that were never killed: they were paused, cut off, and what they use was killed.
The slope is of a line by least squares, one sample a second, after a warm-up of two fifths.

"""


def page(outcome: Outcome) -> str:
    """Return the report."""
    plan = outcome.plan
    shape = plan.shape
    lag = "never" if outcome.drained_s is None else f"{outcome.drained_s:.1f} s"
    facts = {
        "run": f"{datetime.now(UTC):%Y-%m-%d}, {plan.seconds:.0f} s, seed {plan.seed}",
        "again": f"`make soak SEED={plan.seed} DURATION={plan.seconds:.0f}`",
        "machine": f"{os.cpu_count()} cores, shared by all processes and the callers",
        "processes": (
            f"{shape.sidecars} serve, {shape.ingesters} ingest, {shape.relays} relay, 1 control;"
            " Redis with append-only file and a replica, Postgres, a webhook receiver"
        ),
        "load": f"about {plan.per_s:.0f} operations a second while nothing fails",
        "tries": f"{sum(outcome.tries.values()):,}",
        "events in the ledger": f"{outcome.events:,}",
        "messages to the destination": f"{outcome.messages:,}",
        "faults": f"{sum(outcome.strikes.values())} of {len(outcome.strikes)} kinds",
        "nothing waits any more": f"{lag} after healing, and 4 s for reservations to expire",
    }
    parts = [
        HEAD,
        _table(("what", "figure"), facts.items()),
        "\n## Verdicts\n\n",
        _table(("", "what holds", "verdict"), _verdicts(outcome)),
        "\n## Faults\n\n",
        _table(("fault", "times"), sorted(outcome.strikes.items())),
        "\n## Answers\n\n",
        _table(("try", "times"), sorted(outcome.tries.items())),
        "\nTries that got no answer, by status or reason; each was sent again:\n\n",
        _table(("why", "times"), sorted(outcome.failures.items())),
        "\n## Memory and files\n\n",
        MEMORY,
        _table(
            ("process", "lived", "MB, first and last tenth", "MB a minute", "files, the same"),
            [
                (
                    each.name,
                    f"{each.seconds:.0f} s",
                    f"{each.rss_mb[0]:.1f}, {each.rss_mb[1]:.1f}",
                    f"{each.mb_per_minute:+.2f}",
                    f"{each.files[0]:.1f}, {each.files[1]:.1f}",
                )
                for each in outcome.slopes
            ],
        ),
    ]
    return "".join(parts)


def _verdicts(outcome: Outcome) -> Iterable[tuple[str, str, str]]:
    for name, means in MEANS.items():
        wrong = outcome.wrong.get(name, [])
        yield name, means, f"**{len(wrong)} wrong**: {wrong[0][:120]}" if wrong else "holds"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(str(each).replace('|', chr(92) + '|') for each in cells)} |\n"

    return "".join([line(head), line("---" for _ in head), *map(line, rows)])
