"""Envoy ─▶ [ access_logs ] ─▶ admit: what access logs tell is recorded as usage.

If we die here, what was taken and not yet recorded is lost with what is on its way: Envoy keeps no
entry that it has sent. What was recorded is in the journal, or in Redis. A stop in good order
records what is in hand.

Guarantees: a message is taken only when all of the one before is recorded, or can never be; the
same entry is recorded once, however often it comes. While nothing can be recorded it waits, and
Envoy with it.
Refuses to know: Envoy's messages.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from tallygate.domain.envoy import LogRule
from tallygate.domain.envoy_log import LogRecord, rule_of, usage_of
from tallygate.domain.errors import (
    CatalogNotLoaded,
    DeadlineTooShort,
    InvalidField,
    TallygateError,
)
from tallygate.domain.request import RecordResult, UsageRequest
from tallygate.flow.admit import Admit
from tallygate.ports import CatalogView

# Recorded together: what one group commit of the journal takes well.
BATCH_MAX: Final = 500
# For one try: nobody waits for the answer, but what waits holds memory here and in Envoy.
TRY_S: Final = 5.0
# Between tries: a blip is over at once, and an outage is asked about every two seconds.
WAIT_FIRST_S: Final = 0.05
WAIT_LAST_S: Final = 2.0
# For what is in hand when its stream ends: less than any stop leaves.
LAST_S: Final = 3.0

Allowed = Callable[[UsageRequest], bool]
"""Says whether the one who sends logs may record that."""


class LogObserver(Protocol):
    """What is told of entries and their events."""

    def log_entries(self, outcome: str, count: int) -> None:
        """So many entries were taken, unmatched, intermediate or unreadable."""

    def log_events(self, outcome: str, count: int) -> None:
        """So many events were recorded, replayed, denied or rejected."""

    def log_rejected(self, error: TallygateError) -> None:
        """An entry or event was not recorded, and never will be."""


class AccessLogs:
    """Records what streams of access logs tell."""

    def __init__(
        self,
        admit: Admit,
        view: CatalogView,
        observer: LogObserver,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._admit = admit
        self._view = view
        self._observer = observer
        self._wait = wait

    def skip(self, count: int) -> None:
        """Count entries of what goes on: its end tells all of it again."""
        if count:
            self._observer.log_entries("intermediate", count)

    async def take(self, records: Sequence[LogRecord], allowed: Allowed) -> None:
        """Return when all that these entries tell is recorded, or can never be.

        Who gives up, as at a stop, is held for a moment more: nobody else has these entries.
        """
        work = asyncio.create_task(self._take(records, allowed))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work}, timeout=LAST_S)
            work.cancel()
            raise

    async def _take(self, records: Sequence[LogRecord], allowed: Allowed) -> None:
        events = await self._events(records, allowed)
        for start in range(0, len(events), BATCH_MAX):
            await self._record(events[start : start + BATCH_MAX])

    async def _events(self, records: Sequence[LogRecord], allowed: Allowed) -> list[UsageRequest]:
        rules = await self._rules()
        events: list[UsageRequest] = []
        outcomes: Counter[str] = Counter()
        denied = 0
        for record in records:
            rule = rule_of(rules, record)
            if rule is None:
                outcomes["unmatched"] += 1
                continue
            try:
                found = usage_of(rule, record)
            except InvalidField as error:
                outcomes["unreadable"] += 1
                self._observer.log_rejected(error)
                continue
            outcomes["taken"] += 1
            kept = [each for each in found if allowed(each)]
            denied += len(found) - len(kept)
            events += kept
        for outcome, count in outcomes.items():
            self._observer.log_entries(outcome, count)
        if denied:
            self._observer.log_events("denied", denied)
        return events

    async def _rules(self) -> Sequence[LogRule]:
        """Return the rules once there is a catalog."""
        wait_s = WAIT_FIRST_S
        while True:
            try:
                return self._view.current().envoy.access_logs
            except CatalogNotLoaded:
                await self._wait(wait_s)
                wait_s = min(2 * wait_s, WAIT_LAST_S)

    async def _record(self, events: Sequence[UsageRequest]) -> None:
        """Record events, again and again those that could not be, by the same ids."""
        wait_s = WAIT_FIRST_S
        left = events
        while left:
            expires_at = asyncio.get_running_loop().time() + TRY_S
            try:
                results: Sequence[RecordResult | TallygateError] = await self._admit.record(
                    left, expires_at
                )
            except TallygateError as error:
                results = [error] * len(left)
            left = self._sifted(left, results)
            if left:
                await self._wait(wait_s)
                wait_s = min(2 * wait_s, WAIT_LAST_S)

    def _sifted(
        self, events: Sequence[UsageRequest], results: Sequence[RecordResult | TallygateError]
    ) -> list[UsageRequest]:
        """Count what has come of events; return those to try again."""
        left: list[UsageRequest] = []
        outcomes: Counter[str] = Counter()
        for event, result in zip(events, results, strict=True):
            if isinstance(result, RecordResult):
                outcomes["replayed" if result.replayed else "recorded"] += 1
            elif result.transient or isinstance(result, DeadlineTooShort):
                left.append(event)
            else:
                outcomes["rejected"] += 1
                self._observer.log_rejected(result)
        for outcome, count in outcomes.items():
            self._observer.log_events(outcome, count)
        return left
