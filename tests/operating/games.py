"""The faults of a game day: what is done, what is to be seen, which alert, which page.

Owns the table of `docs/operating/game-day.md`. Guarantees that each fault has signs to be seen by
metrics alone, of its beginning and of its end. Refuses to know whose hands do it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.operating.board import Board

LATE_S: Final = 3.0
"""Older than this, an event or a message is late: on a game day one need not wait for minutes."""

EXPIRY: Final = "tallygate_certificate_expiry_timestamp_seconds"
OVER_S: Final = 900.0
"""Before a certificate's end, at which the alert says that it is over or nearly."""

Before = Board


@dataclass(frozen=True, slots=True)
class Sign:
    """What is to be seen: in words, and by the metrics of now and of before the fault."""

    says: str
    seen: Callable[[Board, Before], bool]


@dataclass(frozen=True, slots=True)
class Game:
    """One fault. `do` and `undo` are for hands; `alert` is what should ring."""

    name: str
    do: str
    undo: str
    alert: str
    sign: Sign
    well: Sign

    @property
    def look(self) -> str:
        """The page of what rings."""
        return f"docs/runbooks/{self.alert}.md"


def _silent(role: str) -> Callable[[Board, Before], bool]:
    return lambda now, _: sum(role in name for name in now.silent) > 0


def _rose(metric: str, by: float = 1.0, **labels: str) -> Callable[[Board, Before], bool]:
    return lambda now, before: now.total(metric, **labels) >= before.total(metric, **labels) + by


def _above(metric: str, bound: float, **labels: str) -> Callable[[Board, Before], bool]:
    return lambda now, _: now.most(metric, **labels) > bound


def _down(metric: str, bound: float = 0.0, **labels: str) -> Callable[[Board, Before], bool]:
    def holds(now: Board, _: Before) -> bool:
        values = now.values(metric, **labels)
        return not now.silent and bool(values) and max(values) <= bound

    return holds


def _back(metric: str, **labels: str) -> Callable[[Board, Before], bool]:
    def holds(now: Board, before: Before) -> bool:
        # On a machine that is busy by itself, what is usual may be late already.
        usual = max(LATE_S, 2 * before.most(metric, **labels))
        return not now.silent and bool(now.values(metric)) and now.most(metric, **labels) <= usual

    return holds


def _over_within(seconds: float) -> Callable[[Board, Before], bool]:
    def soon(now: Board, _: Before) -> bool:
        ends = now.values(EXPIRY)
        return bool(ends) and min(ends) - time.time() < seconds

    return soon


def _over_after(seconds: float) -> Callable[[Board, Before], bool]:
    soon = _over_within(seconds)
    return lambda now, _: not now.silent and bool(now.values(EXPIRY)) and not soon(now, _)


def _all(*of: Callable[[Board, Before], bool]) -> Callable[[Board, Before], bool]:
    return lambda now, before: all(each(now, before) for each in of)


LAG_BACK: Final = Sign(
    "`tallygate_ingest_lag_seconds` and `tallygate_journal_oldest_seconds` are back",
    _all(_back("tallygate_ingest_lag_seconds"), _back("tallygate_journal_oldest_seconds")),
)

GAMES: Final = (
    Game(
        "ingest",
        do="end every ingester: scale `ingest` to 0",
        undo="start them again",
        alert="TallygateRoleMissing",
        sign=Sign(
            "`ingest` answers no scrape; `tallygate_journal_oldest_seconds` rises on the sidecars",
            _all(_silent("ingest"), _above("tallygate_journal_oldest_seconds", LATE_S)),
        ),
        well=LAG_BACK,
    ),
    Game(
        "serve",
        do="kill a sidecar",
        undo="start it again on its folder",
        alert="TallygateTargetDown",
        sign=Sign("a `serve` answers no scrape; the others go on deciding", _silent("serve")),
        well=Sign(
            "every `serve` answers, `tallygate_journal_pending_operations` is 0",
            _down("tallygate_journal_pending_operations"),
        ),
    ),
    Game(
        "redis",
        do="stop Redis, its data kept",
        undo="start it again",
        alert="TallygateRedisAway",
        sign=Sign(
            "`tallygate_breaker_state` is 2, `tallygate_degraded_decisions_total` rises",
            _all(
                _above("tallygate_breaker_state", 1.0), _rose("tallygate_degraded_decisions_total")
            ),
        ),
        well=Sign(
            "`tallygate_breaker_state` and `tallygate_outage_backlog_operations` are 0",
            _all(
                _down("tallygate_breaker_state"),
                _down("tallygate_outage_backlog_operations"),
            ),
        ),
    ),
    Game(
        "emptied",
        do="empty Redis: `FLUSHALL`",
        undo="nothing: it mends itself",
        alert="TallygateRedisEpochChanged",
        sign=Sign(
            "`tallygate_redis_epoch_changes_total` rises",
            _rose("tallygate_redis_epoch_changes_total"),
        ),
        well=Sign(
            "`tallygate_quota_shards_shut` is 0, `tallygate_journal_oldest_seconds` back",
            _all(
                _down("tallygate_quota_shards_shut"),
                _back("tallygate_journal_oldest_seconds"),
            ),
        ),
    ),
    Game(
        "postgres",
        do="stop Postgres",
        undo="start it again",
        alert="TallygateIngestLag",
        sign=Sign(
            "`tallygate_ingest_lag_seconds` rises; decisions go on",
            _above("tallygate_ingest_lag_seconds", LATE_S),
        ),
        well=LAG_BACK,
    ),
    Game(
        "journal",
        do="fill the disk of a sidecar's folder",
        undo="give the room back",
        alert="TallygateJournalUnwell",
        sign=Sign(
            "`tallygate_journal_state` is not 0, `tallygate_journal_failures_total` rises",
            _all(_above("tallygate_journal_state", 0.0), _rose("tallygate_journal_failures_total")),
        ),
        well=Sign("`tallygate_journal_state` is 0 again", _down("tallygate_journal_state")),
    ),
    Game(
        "destination",
        do="have a webhook's receiver answer 503",
        undo="have it take what comes",
        alert="TallygateOutboxAge",
        sign=Sign(
            "`tallygate_deliveries_total` rises as `retried`, `tallygate_outbox_age_seconds` too",
            _all(
                _rose("tallygate_deliveries_total", outcome="retried"),
                _above("tallygate_outbox_age_seconds", LATE_S, destination="billing"),
            ),
        ),
        well=Sign(
            "`tallygate_outbox_age_seconds` is back, `tallygate_outbox_parked` is 0",
            _all(
                _back("tallygate_outbox_age_seconds", destination="billing"),
                _down("tallygate_outbox_parked", destination="billing"),
            ),
        ),
    ),
    Game(
        "certificate",
        do="give a sidecar a certificate that is over in five minutes",
        undo="renew it; no restart is needed",
        alert="TallygateCertificateOver",
        sign=Sign(f"`{EXPIRY}` is near", _over_within(OVER_S)),
        well=Sign(f"`{EXPIRY}` is far", _over_after(OVER_S)),
    ),
    Game(
        "stripe",
        do="give a tenant a `stripe_customer_id` that Stripe does not know, in a sandbox",
        undo="have Stripe know the customer, then `tallygate stripe retry`",
        alert="TallygateStripeRejected",
        sign=Sign(
            "`tallygate_stripe_open` has sends that are `rejected`",
            _above("tallygate_stripe_open", 0.0, state="rejected"),
        ),
        well=Sign(
            "none is `rejected`, and what was is `delivered`",
            _down("tallygate_stripe_open", state="rejected"),
        ),
    ),
)


def table() -> list[str]:
    """Return the page's table."""
    rows = []
    for each in GAMES:
        rings = f"[{each.alert}](../{each.look.removeprefix('docs/')})"
        rows.append((f"`{each.name}`", each.do, each.sign.says, rings, each.well.says))
    columns = ("fault", "done", "seen by", "rings", "over when")
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
