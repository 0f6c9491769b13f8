"""`tallygate lineage`: from an event to what was made of it, and back to the events.

Guarantees: it changes nothing; exit code 0 says that what was asked for is on record. Events come
in pages: `next` is what `--after` takes.
Refuses to know: where any of it is kept.
"""

import re
from typing import Annotated, Final

import typer

from tallygate.commands import explain as explains
from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, fail, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.drift import spelled
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.ports.lineage import BucketAsked, BucketLineage, Grain, MessageLineage
from tallygate.wiring.auditing import tracing

lineage = typer.Typer(no_args_is_help=True, help="From events to what was made of them, and back.")

ROWS_MAX: Final = 10_000
_INSTANT: Final = re.compile(r"-?[0-9]{1,18}")
Rows = Annotated[int, typer.Option(help="How many events to show.", min=1, max=ROWS_MAX)]


@lineage.command("event")
def of_event(
    *,
    event: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")],
    tenant: Annotated[str, typer.Option(help="Whose event it is; else all are searched.")] = "",
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what was made of an event: rollups, billing period, deliveries."""
    explains.explain(
        event=event,
        tenant=tenant,
        postgres_dsn=postgres_dsn,
        redis_url=redis_url,
        config=config,
        as_json=as_json,
    )


@lineage.command("bucket")
def of_bucket(
    *,
    tenant: Annotated[str, typer.Argument(help="Whose usage.", show_default=False)],
    meter: Annotated[str, typer.Argument(help="Of which meter.", show_default=False)],
    at: Annotated[str, typer.Option(help="An instant within the bucket.", show_default=False)],
    by: Annotated[Grain, typer.Option(help="How long the bucket is.")] = Grain.HOUR,
    after: Annotated[str, typer.Option(help="Where the page before ended.")] = "",
    rows: Rows = 100,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a rollup's bucket and the events that it is the sum of."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    at_us = instant_us(at, "--at")
    if at_us is None:
        fail(InvalidField("is required", field="--at"))
    place = _place(after)

    async def work() -> BucketLineage:
        tenant_id = ids.tenant_id(tenant, "TENANT")
        asked = BucketAsked(tenant_id, MeterName(meter), by, at_us, place, rows)
        async with tracing(settings) as reads:
            return await reads.bucket(asked)

    asked = {"meter": meter, "by": by.value, "at": at, "after": after}
    found = run_audited(
        settings, "lineage bucket", work(), tenant_id=tenant, shows=True, request=asked
    )
    show(_bucket(found, by), as_json=as_json)
    if found.count is None and not found.events_count and not found.events:
        errors.print("There is no such bucket, and no event of it.")
        raise typer.Exit(EXIT_FAILED)


@lineage.command("message")
def of_message(
    *,
    message: Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="As a webhook has it.")],
    after: Annotated[
        int, typer.Option(help="How many events to leave out.", min=0, max=ROWS_MAX)
    ] = 0,
    rows: Rows = 500,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a message, the events that it tells of, and where it was sent."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)

    async def work() -> MessageLineage | None:
        async with tracing(settings) as reads:
            return await reads.message(message, after, rows)

    asked: dict[str, str | int | bool | None] = {"message": message, "after": after}
    found = run_audited(settings, "lineage message", work(), shows=True, request=asked)
    if found is None:
        show([Sheet("message", ("message",), [])], as_json=as_json)
        errors.print("There is no such message; it may have been pruned.")
        raise typer.Exit(EXIT_FAILED)
    show(_message(found, after), as_json=as_json)


def _place(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    at_us, colon, event_id = text.partition(":")
    if not colon or _INSTANT.fullmatch(at_us) is None:
        fail(InvalidField("is not what `next` said", field="--after"))
    return int(at_us), event_id


def _bucket(found: BucketLineage, by: Grain) -> list[Sheet]:
    last = found.events[-1] if found.more else None
    verdict = "differs: run `tallygate verify`"
    if found.archived is not None:
        verdict = f"archived: the events are in {found.archived.file}"
    elif (found.count or 0, found.sum or 0) == (found.events_count, found.events_sum):
        verdict = "agrees"
    bucket = (
        *(by.value, spelled(found.bucket_us), found.count, found.sum),
        *(found.events_count, found.events_sum, verdict),
        f"{last.event_time_us}:{last.event_id}" if last is not None else None,
    )
    columns = ("by", "bucket", "events", "sum", "ledger's events", "ledger's sum", "so", "next")
    events = [
        (
            *(each.event_id, each.amount, spelled(each.event_time_us)),
            *(spelled(each.received_at_us), each.operation_id, each.refund_of),
        )
        for each in found.events
    ]
    names = ("event", "amount", "happened", "accepted", "operation", "refund of")
    return [Sheet("bucket", columns, [bucket]), Sheet("events", names, events)]


def _message(found: MessageLineage, after: int) -> list[Sheet]:
    shown = after + len(found.events)
    names = ("message", "type", "about", "written", "events", "next", "traces")
    head = (
        *(found.message_id, found.type, found.about, spelled(found.created_at_us)),
        *(found.events_count, shown if shown < found.events_count else None),
        " ".join(found.traces),
    )
    return [
        Sheet("message", names, [head]),
        Sheet(
            "events",
            ("tenant", "event", "meter", "amount", "where"),
            [
                (each.tenant_id, each.event_id, each.meter, each.amount, each.where.value)
                for each in found.events
            ],
        ),
        Sheet(
            "deliveries",
            ("destination", "state", "attempts", "finished", "reason"),
            [
                (
                    *(each.destination, each.state, each.attempt),
                    *(spelled(each.finished_at_us) if each.finished_at_us else None, each.reason),
                )
                for each in found.deliveries
            ],
        ),
    ]
