"""`tallygate invoice`: what tenants owe, worked out, issued, looked up and explained.

Guarantees: a preview changes nothing; with `--format json` or `--json`, stdout is one JSON
document; what does not exist, or is not over, is one line on stderr and exit code 1.
Refuses to know: how an invoice is worked out, and where it is kept.
"""

import getpass
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from tallygate.commands import invoice_links
from tallygate.commands.audited import run_audited
from tallygate.commands.invoice_links import NO_LINKS, Links, links_of
from tallygate.commands.invoice_page import page
from tallygate.commands.options import Config, Json, PostgresDsn, ledger_settings
from tallygate.commands.output import Sheet, errors, run, show
from tallygate.domain import ids
from tallygate.domain import invoice_words as words
from tallygate.domain.drift import spelled
from tallygate.domain.errors import InvalidField
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind
from tallygate.domain.invoice_document import to_json
from tallygate.domain.invoice_period import instant_named
from tallygate.domain.window import Calendar, Window
from tallygate.flow.invoice import START, Evidence, Invoicing
from tallygate.ports.billing import InvoiceSummary, Place, StoredInvoice
from tallygate.wiring.invoicing import invoice_books, invoicing

EVENTS_MAX: Final = 10_000
LIST_MAX: Final = 1_000

invoice = typer.Typer(no_args_is_help=True, help="Preview, issue and explain invoices.")


class Format(StrEnum):
    """How an invoice is shown."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"


Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Whose.", show_default=False)]
AnyPeriod = Annotated[
    str,
    typer.Option(
        "--period",
        help="A month in which it begins (2026-11), or a day or an instant in it; by default now.",
    ),
]
OnePeriod = Annotated[
    str,
    typer.Option(
        "--period", help="A month in which it begins (2026-11), or a day or an instant in it."
    ),
]
Shown = Annotated[Format, typer.Option("--format", help="How it is shown.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show the rollups and events of each line.")
]
Line = Annotated[int, typer.Option("--line", min=0, help="Explain this line alone.")]
After = Annotated[
    str, typer.Option("--after", help="Go on with a line's events where a page ended.")
]
Events = Annotated[
    int, typer.Option("--events", min=1, max=EVENTS_MAX, help="Rollups and events per line.")
]


@dataclass(frozen=True, slots=True)
class _Page:
    """What is to be shown: an invoice, its evidence, and how it was issued if it was."""

    invoice: Invoice
    time_zone: str
    evidence: tuple[Evidence, ...]
    stored: StoredInvoice | None = None
    links: Links = NO_LINKS


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which evidence is asked for; `line` 0 is all."""

    explain: bool
    line: int
    after: str
    events: int


@invoice.command()
def preview(
    tenant: Tenant,
    *,
    period: AnyPeriod = "",
    shown: Shown = Format.TABLE,
    explain: Explain = False,
    line: Line = 0,
    after: After = "",
    events: Events = 20,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Work out what a tenant owes for a billing period, as it is now; nothing is written."""
    settings = ledger_settings(config, postgres_dsn)
    asked = _Asked(explain, line, after, events)

    async def work() -> _Page:
        tenant_id = ids.tenant_id(tenant, "TENANT")
        async with invoicing(settings) as lent:
            calendar = await lent.calendar(tenant_id)
            window = await lent.current(tenant_id)
            if period:
                window = await _window(lent, tenant_id, period, calendar)
            made = await lent.preview(tenant_id, window)
            return _Page(made, calendar.time_zone, await _evidence(lent, made, asked))

    _show(run(work()), shown)


@invoice.command()
def issue(
    tenant: Tenant,
    *,
    period: OnePeriod,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    actor: Annotated[str, typer.Option(help="Who, for the record; by default who you are.")] = "",
    shown: Shown = Format.TABLE,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Write the invoice of a period that is over; a change since is another revision."""
    settings = ledger_settings(config, postgres_dsn)

    async def work() -> _Page:
        tenant_id = ids.tenant_id(tenant, "TENANT")
        async with invoicing(settings) as lent:
            calendar = await lent.calendar(tenant_id)
            stored = await lent.issue(
                tenant_id,
                await _window(lent, tenant_id, period, calendar),
                reason=_prose(reason, "--reason"),
                actor=_prose(actor, "--actor") or getpass.getuser(),
            )
            return _Page(stored.invoice, calendar.time_zone, (), stored)

    asked = {"period": period, "reason": reason, "actor": actor}
    _show(run_audited(settings, "invoice issue", work(), tenant_id=tenant, request=asked), shown)


@invoice.command("show")
def show_invoice(
    tenant: Tenant,
    *,
    period: OnePeriod,
    revision: Annotated[int, typer.Option(min=0, help="Which; by default the newest.")] = 0,
    shown: Shown = Format.TABLE,
    explain: Explain = False,
    line: Line = 0,
    after: After = "",
    events: Events = 20,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Show an issued invoice as it was issued; evidence is as the ledger has it now."""
    settings = ledger_settings(config, postgres_dsn)
    asked = _Asked(explain, line, after, events)

    async def work() -> _Page:
        tenant_id = ids.tenant_id(tenant, "TENANT")
        async with invoicing(settings) as lent:
            calendar = await lent.calendar(tenant_id)
            window = await _window(lent, tenant_id, period, calendar)
            stored = await lent.stored(tenant_id, window, revision)
            evidence = await _evidence(lent, stored.invoice, asked)
            links = await links_of(lent, stored)
            return _Page(stored.invoice, calendar.time_zone, evidence, stored, links)

    _show(run(work()), shown)


@invoice.command("list")
def list_invoices(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    before: Annotated[int, typer.Option(min=0, help="Only those with a lower number.")] = 0,
    rows: Annotated[int, typer.Option(min=1, max=LIST_MAX, help="How many.")] = 100,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List issued invoices, every revision, the newest first."""
    settings = ledger_settings(config, postgres_dsn)

    async def work() -> list[InvoiceSummary]:
        tenant_id = ids.tenant_id(tenant, "--tenant") if tenant else None
        async with invoice_books(settings) as books:
            return await books.page(tenant_id, before, rows)

    columns = ("number", "tenant", "period", "revision", "currency", "total", "sha256", "reason")
    found = [
        (
            *(each.number, each.tenant_id, words.stretch(each.period, "UTC"), each.revision),
            *(each.currency, format(each.total, "f"), each.sha256.hex(), each.reason),
        )
        for each in run(work())
    ]
    show([Sheet("invoices", columns, found)], as_json=as_json)


async def _window(lent: Invoicing, tenant_id: ids.TenantId, period: str, of: Calendar) -> Window:
    return await lent.period(tenant_id, instant_named(period, of, "--period"))


def _prose(text: str, field: str) -> str:
    if len(text) > ids.ID_LENGTH_MAX * 2 or not text.isprintable():
        raise InvalidField("must be up to 256 printable characters", field=field)
    return text


async def _evidence(lent: Invoicing, made: Invoice, asked: _Asked) -> tuple[Evidence, ...]:
    lines = [each for each in made.lines if each.kind is LineKind.USAGE]
    if asked.line:
        lines = [each for each in made.lines if each.number == asked.line]
        if not lines:
            raise InvalidField(f"there are lines 1 to {len(made.lines)}", field="--line")
    elif not asked.explain:
        return ()
    if asked.after and not asked.line:
        raise InvalidField("needs --line: whose events go on", field="--after")
    after = _place(asked.after) if asked.after else START
    return tuple([await lent.evidence(made, each, after, asked.events) for each in lines])


def _place(text: str) -> Place:
    at, slash, event_id = text.partition("/")
    if not slash or not at.isascii() or not at.isdigit() or len(at) > len(str(ids.AMOUNT_MAX)):
        raise InvalidField("must be as it was printed: TIME/EVENT", field="--after")
    return int(at), ids.event_id(event_id, "--after")


def _show(found: _Page, shown: Format) -> None:
    match shown:
        case Format.JSON:
            print(json.dumps(_document(found), indent=2, ensure_ascii=False))  # noqa: T201
        case Format.HTML:
            print(page(found.invoice, found.time_zone, _note(found)))  # noqa: T201
        case _:
            show([*_sheets(found)], as_json=False)
            errors.print(_note(found), markup=False)
    if found.invoice.unpriced:
        meters = ", ".join(found.invoice.unpriced)
        errors.print(f"No price of the plan is for usage of {meters}.", markup=False)


def _note(found: _Page) -> str:
    stored = found.stored
    if stored is None:
        return "A preview: nothing was issued, and late usage may change it."
    return f"Revision {stored.revision}, SHA-256 {stored.sha256.hex()}."


def _document(found: _Page) -> dict[str, Any]:
    document: dict[str, Any] = {"invoice": to_json(found.invoice)}
    if found.stored is not None:
        document["issued"] = {
            "revision": found.stored.revision,
            "sha256": found.stored.sha256.hex(),
            "reason": found.stored.reason,
            "actor": found.stored.actor,
            "created_at_us": found.stored.created_at_us,
        }
    document |= invoice_links.document(found.links)
    if found.evidence:
        document["evidence"] = [_evidence_json(each) for each in found.evidence]
    return document


def _evidence_json(each: Evidence) -> dict[str, Any]:
    return {
        "line": each.line.number,
        "count": each.line.count,
        "rollups": [
            {
                "level": bucket.level,
                "at_us": bucket.at_us,
                "count": bucket.count,
                "sum": bucket.sum,
                "event_id": bucket.event_id,
            }
            for bucket in each.buckets
        ],
        "more_rollups": each.more_buckets,
        "events": [
            {
                "event_id": event.event_id,
                "event_time_us": event.event_time_us,
                "amount": event.amount,
                "refund_of": event.refund_of,
            }
            for event in each.events
        ],
        "more_from": _token(each.more_from),
    }


def _token(place: Place | None) -> str:
    return f"{place[0]}/{place[1]}" if place is not None else ""


def _sheets(found: _Page) -> Sequence[Sheet]:
    made = found.invoice
    columns = ("#", "for", "plan", "time", "quantity", "working", made.currency)
    sums = [
        ("subtotal", f"{made.subtotal:,f}"),
        ("discounts", f"{made.discounts:,f}"),
        ("credits", f"{made.credits:,f}"),
        ("total", f"{made.total:,f}"),
    ]
    heading = f"invoice for {made.tenant_id}, {words.stretch(made.period, found.time_zone)}"
    sheets = [
        Sheet(heading, columns, [_row(line, found.time_zone) for line in made.lines]),
        Sheet("sums", ("", made.currency), sums),
    ]
    sheets += invoice_links.sheets(found.links, made.period, found.time_zone)
    for each in found.evidence:
        sheets += _evidence_sheets(each)
    return sheets


def _row(line: InvoiceLine, time_zone: str) -> tuple[str | int, ...]:
    return (
        line.number,
        words.whose(line, time_zone),
        line.plan,
        words.stretch(line.segment, time_zone),
        words.quantity(line),
        words.working(line),
        f"{line.amount:,f}",
    )


def _evidence_sheets(each: Evidence) -> list[Sheet]:
    number = each.line.number
    sheets = []
    if each.buckets:
        rows = [
            (bucket.level.value, spelled(bucket.at_us), bucket.count, bucket.sum)
            for bucket in each.buckets
        ]
        more = ", and more" if each.more_buckets else ""
        sheets.append(Sheet(f"line {number}: rollups{more}", ("by", "from", "events", "sum"), rows))
    events = [
        (event.event_id, spelled(event.event_time_us), event.amount, event.refund_of)
        for event in each.events
    ]
    heading = f"line {number}: {len(events)} of {each.line.count:,} events and their refunds"
    if each.more_from is not None:
        heading += f"; go on with --line {number} --after {_token(each.more_from)}"
    sheets.append(Sheet(heading, ("event", "time", "amount", "refund of"), events))
    return sheets
