"""Stripe ─▶ [ stripe report ] ─▶ sends: errors found after an answer, joined to what they are of.

If we die here before the note, Stripe sends the report again, as it has no answer of ours. If we
die after the note, the same report finds itself noted.

Guarantees: a report counts once, however often it comes; what it names is rejected with its code,
until a person has it sent again. Errors that it counts and does not name are told.
Refuses to know: signatures, HTTP and Postgres.
"""

from collections.abc import Mapping
from typing import Protocol

from tallygate.domain.errors import BackendUnavailable, NotFound
from tallygate.ports import Clock
from tallygate.ports.stripe import NotSigned, StripeReports
from tallygate.ports.stripe_store import StripeUpkeep


class ReportObserver(Protocol):
    """What is told of reports."""

    def reported(self, destination: str, outcome: str) -> None:
        """A notice came: noted, repeated, ignored, unsigned or failed."""

    def errors(self, destination: str, codes: Mapping[str, int], unnamed: int) -> None:
        """A report counted so many errors by code, of which so many are of no send we know."""


class TakeReports:
    """Takes reports of all destinations that have a secret for them."""

    def __init__(self, upkeep: StripeUpkeep, clock: Clock, observer: ReportObserver) -> None:
        self._upkeep = upkeep
        self._clock = clock
        self._observer = observer
        self.sources: dict[str, StripeReports] = {}

    async def take(self, destination: str, body: bytes, signature: str) -> None:
        """Work off one notice.

        Raises `NotFound`, `NotSigned`, and `BackendUnavailable` when it should come again.
        """
        source = self.sources.get(destination)
        if source is None:
            raise NotFound("no reports are taken for this destination")
        try:
            report = await source.read(body, signature)
            if report is None:
                self._observer.reported(destination, "ignored")
                return
            noted = await self._upkeep.report(
                destination, report.event_id, report.errors, self._clock.now_us()
            )
        except NotSigned:
            self._observer.reported(destination, "unsigned")
            raise
        except BackendUnavailable:
            self._observer.reported(destination, "failed")
            raise
        if not noted.new:
            self._observer.reported(destination, "repeated")
            return
        self._observer.reported(destination, "noted")
        found = noted.rejected + noted.opened
        self._observer.errors(destination, report.codes, max(0, report.total - found))
