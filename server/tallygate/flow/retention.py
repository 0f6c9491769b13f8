"""ledger ─▶ [ retention ] ─▶ archive: months of events that are old enough, after a look at all.

If we die here after a file is whole, it is not noted and is written anew; after it is noted, the
month is dropped the next time; a drop is there whole, with its note, or not at all.

Guarantees: nothing is dropped that is younger than the policy says, that a legal hold or an open
billing period keeps, or that its archive has not: its file is read again before. What is planned is
what is done, or less.
Refuses to know: SQL and formats.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.errors import TallygateError
from tallygate.domain.retention import MonthFacts, Policy, Verdict, due_before_us, verdict
from tallygate.ports import Clock
from tallygate.ports.export import RowFile
from tallygate.ports.retention import MonthArchive, NotDropped, Retention

_DUE: Final = (Verdict.ARCHIVE, Verdict.CHANGED)

Progress = Callable[[int, int], None]


class Files(Protocol):
    """Where archives lie."""

    def begin(self, facts: MonthFacts, archive_id: str) -> RowFile:
        """Begin the file of a month. Raises `FileRefused`."""
        ...

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file in hex. Raises `FileRefused` where there is none."""
        ...

    @property
    def format(self) -> str:
        """Return how files are written."""
        ...


class Upkeep(Protocol):
    """Prunes messages."""

    async def prune(self, older_than_days: int) -> int:
        """Delete messages that were delivered everywhere and are that old; return how many."""
        ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A month, and what becomes of it."""

    facts: MonthFacts
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Dropped:
    """A month, and how many events were dropped; `refused` says why it was not, if so."""

    facts: MonthFacts
    events: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class RetentionParts:
    """What retention works with."""

    store: Retention
    clock: Clock
    policy: Policy
    actor: str


async def plan(parts: RetentionParts) -> list[Planned]:
    """Return what becomes of each month that is older than what is kept.

    Younger ones are not even counted, which would be to read the whole ledger.
    """
    if not parts.policy.event_months:
        return []
    now_us = parts.clock.now_us()
    months = await parts.store.months(due_before_us(now_us, parts.policy.event_months))
    return [Planned(each, verdict(each, parts.policy, now_us)) for each in months]


async def archive(parts: RetentionParts, files: Files, progress: Progress) -> list[MonthArchive]:
    """Write every month that is due and not archived to a file; return what was written."""
    due = [each.facts for each in await plan(parts) if each.verdict in _DUE]
    return [await _archived(parts, files, facts, progress) for facts in due]


async def drop(
    parts: RetentionParts, files: Files | None, progress: Callable[[int, int], None]
) -> list[Dropped]:
    """Drop every month whose archive has it; `files` None trusts archives that lie elsewhere."""
    due = [each.facts for each in await plan(parts) if each.verdict is Verdict.DROP]
    done = []
    for number, facts in enumerate(due, 1):
        done.append(await _dropped(parts, files, facts))
        progress(number, len(due))
    return done


async def _archived(
    parts: RetentionParts, files: Files, facts: MonthFacts, progress: Progress
) -> MonthArchive:
    archive_id = uuid.uuid4().hex
    file = files.begin(facts, archive_id)
    done = 0
    try:
        async with parts.store.rows(facts.month_us) as month:
            async for page in month.rows.pages:
                file.write(page)
                done += len(page)
                progress(done, month.rows.total)
        written = file.finish()
    finally:
        file.abandon()
    made = MonthArchive(
        archive_id=archive_id,
        month_us=facts.month_us,
        leaf=facts.leaf,
        events=done,
        file=written,
        format=files.format,
        actor=parts.actor,
        usage=month.usage,
    )
    await parts.store.note(made)
    return made


async def _dropped(parts: RetentionParts, files: Files | None, facts: MonthFacts) -> Dropped:
    try:
        if files is not None and files.digest(facts.file) != facts.file_sha256:
            return Dropped(facts, refused="its archive's file is not the one that was written")
        keep_months = parts.policy.event_months
        return Dropped(facts, await parts.store.drop(facts, keep_months, parts.actor))
    except NotDropped as error:
        return Dropped(facts, refused=error.message)
    except TallygateError as error:
        # The others may be dropped all the same: a file that is gone is one month's.
        if error.transient:
            raise
        return Dropped(facts, refused=error.message)


def refused(done: Sequence[Dropped]) -> bool:
    """Say whether something that was due is still there."""
    return any(each.refused for each in done)
