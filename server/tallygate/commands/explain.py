"""`tallygate explain`: one event's whole story, from its acceptance to its deliveries.

Guarantees: it changes nothing; exit code 0 says that the event is known: in the ledger, among the
dead letters or on its way; 1 that nothing is on record, or that the ledger could not be asked.
Refuses to know: where any of it is kept.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, Cell, Sheet, errors, show
from tallygate.domain import ids
from tallygate.domain.drift import spelled
from tallygate.domain.event import RejectedEvent, UsageEvent
from tallygate.domain.trace import trace_id
from tallygate.flow.explain import Chapter, Ending, Story
from tallygate.ports.story import Archived, Waiting
from tallygate.wiring.auditing import explaining

# Sooner than this is on time: clocks differ, and calls take a while.
LATE_US: Final = 60_000_000


def explain(
    *,
    event: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")],
    tenant: Annotated[
        str, typer.Option(help="Whose event it is; without it all tenants are searched, slowly.")
    ] = "",
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Tell an event's whole story; exit 1 if nothing is on record."""
    settings = settings_of(config, postgres_dsn=postgres_dsn, redis_url=redis_url)
    needs_postgres(settings)

    async def work() -> Story:
        event_id = ids.event_id(event, "EVENT_ID")
        asked = ids.tenant_id(tenant, "--tenant") if tenant else None
        async with explaining(settings) as telling:
            return await telling.story(event_id, asked)

    story = run_audited(
        settings, "explain", work(), tenant_id=tenant, shows=True, request={"event_id": event}
    )
    show([*_sheets(story)], as_json=as_json)
    if story.unsearched:
        errors.print(f"The streams were not searched: {story.unsearched}.", markup=False)
    if not story.known:
        errors.print(f"Nothing is on record of {event!r}.", markup=False)
        raise typer.Exit(EXIT_FAILED)


def _sheets(story: Story) -> Iterator[Sheet]:
    columns = ("tenant", "what", "value")
    lines = [(each.tenant_id, *line) for each in story.chapters for line in _lines(each)]
    yield Sheet("story", columns, lines)
    yield Sheet(
        "rollups",
        ("tenant", "by", "bucket", "events", "sum"),
        [
            (each.tenant_id, bucket.kind, spelled(bucket.bucket_us), bucket.count, bucket.sum)
            for each in story.chapters
            for bucket in each.buckets
        ],
    )
    yield Sheet(
        "refunds",
        ("tenant", "event", "amount", "operation", "accepted"),
        [
            (
                *(each.tenant_id, refund.event_id, refund.amount),
                *(refund.operation_id, spelled(refund.received_at_us)),
            )
            for each in story.chapters
            for refund in each.refunds
        ],
    )
    yield Sheet(
        "deliveries",
        ("tenant", "message", "written", "destination", "state", "attempts", "finished", "reason"),
        [
            (
                *(each.tenant_id, told.message_id, spelled(told.created_at_us)),
                *(told.destination, told.state, told.attempt),
                spelled(told.finished_at_us) if told.finished_at_us else None,
                told.reason,
            )
            for each in story.chapters
            for told in each.told
        ],
    )
    yield from _beside(story)


def _beside(story: Story) -> Iterator[Sheet]:
    """Iterate over what stands beside an event's own way: corrections, refusals, copies."""
    yield Sheet(
        "corrections",
        ("tenant", "what", "number", "epoch", "due", "made", "outcome"),
        [
            (
                *(each.tenant_id, "a duplicate taken back" if due.takes_back else "late, added"),
                *(due.number, due.epoch, spelled(due.created_at_us)),
                spelled(due.finished_at_us) if due.finished_at_us else None,
                due.outcome,
            )
            for each in story.chapters
            for due in each.corrections
        ],
    )
    yield Sheet(
        "dead letters",
        ("tenant", "reason", "detail", "accepted", "stored", "number"),
        [
            (
                *(each.tenant_id, letter.rejected.reason, letter.rejected.detail),
                *(spelled(letter.rejected.received_at_us), spelled(letter.stored_at_us)),
                _number(letter.rejected),
            )
            for each in story.chapters
            for letter in each.letters
        ],
    )
    yield Sheet(
        "in streams",
        ("tenant", "entry", "number", "what"),
        [
            (each.tenant_id, waiting.entry_id, _number(waiting.event), _why(each, waiting))
            for each in story.chapters
            for waiting in (*each.waiting, *each.duplicates)
        ],
    )


def _lines(chapter: Chapter) -> Iterator[tuple[str, Cell]]:
    yield "ending", _ENDINGS[chapter.ending]
    if chapter.archived is not None:
        yield from _archived(chapter.archived)
        yield from _period(chapter)
    if chapter.stored is None:
        for waiting in chapter.waiting:
            yield from _trace(waiting.event)
        return
    event = chapter.stored.event
    yield "meter", event.meter
    yield "amount", event.amount
    yield "happened", spelled(event.event_time_us)
    yield "accepted", spelled(event.received_at_us)
    late_us = event.received_at_us - event.event_time_us
    if late_us > LATE_US:
        yield "late", f"accepted {timedelta(seconds=late_us // 1_000_000)} after it happened"
    yield "operation", event.operation_id
    yield "source", event.source_id
    yield "shard", event.source_lane
    yield "number", event.source_seq
    yield "epoch", event.counter_epoch
    yield "partition", chapter.stored.leaf
    if not chapter.stored.numbered:
        yield "number missing", "the ledger has not marked its number: run `tallygate verify`"
    yield from _trace(event)
    if event.reservation_id:
        yield "reservation", event.reservation_id
    if event.refund_of:
        yield "refund of", event.refund_of
    if chapter.refunds:
        yield "refunded", -sum(each.amount for each in chapter.refunds)
    yield from _period(chapter)
    if not chapter.told:
        yield "deliveries", "no message tells of it: no destination wanted it, or it was pruned"


def _trace(event: UsageEvent) -> Iterator[tuple[str, Cell]]:
    if event.trace:
        yield "trace", trace_id(event.trace)


def _archived(archived: Archived) -> Iterator[tuple[str, Cell]]:
    month = archived.month
    yield "happened", spelled(archived.event_time_us)
    yield "archive", month.file
    yield "archive's sha256", month.file_sha256
    yield "dropped from the ledger", spelled(month.dropped_at_us)


def _period(chapter: Chapter) -> Iterator[tuple[str, Cell]]:
    if chapter.period is not None:
        start, end = spelled(chapter.period.start_us), spelled(chapter.period.end_us)
        yield "billing period", f"{start} to {end}"


_ENDINGS: Final = {
    Ending.PERSISTED: "in the ledger",
    Ending.ARCHIVED: "archived: counted for ever, and kept in its month's archive alone",
    Ending.REJECTED: "refused, and kept as a dead letter",
    Ending.WAITING: "accepted, and on its way to the ledger",
}


def _number(event: UsageEvent | RejectedEvent) -> str:
    return f"{event.source_id}/{event.source_lane}/{event.source_seq}"


def _why(chapter: Chapter, waiting: Waiting) -> str:
    if waiting.rejected_for:
        return f"refused: {waiting.rejected_for}"
    if chapter.stored is not None or chapter.archived is not None:
        return "a duplicate of what the ledger has"
    return "on its way"
