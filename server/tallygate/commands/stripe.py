"""The verbs about Stripe, which an operator gives to the database, and to Stripe for its meters.

Guarantees: each may be given again: what is done is done once. What changes an account is shown
first, and done only when asked.
Refuses to know: how sends and meters change.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import typer

from tallygate.commands.audited import run_audited
from tallygate.commands.charge_lines import charge_lines
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, run, show
from tallygate.domain.catalog import Catalog
from tallygate.domain.errors import InvalidField
from tallygate.domain.invoice_words import plain
from tallygate.domain.stripe_intent import IntentId, SendState
from tallygate.domain.stripe_meters import MeterStep, Step
from tallygate.domain.stripe_prices import AccountPrice, PriceStep
from tallygate.domain.stripe_retry import LATE_US
from tallygate.domain.window import from_datetime, to_datetime
from tallygate.flow.stripe_items import ItemCounts
from tallygate.flow.stripe_mend import Mended
from tallygate.ports.stripe_store import LeftSend, StripeDepth
from tallygate.settings import Settings
from tallygate.wiring.stripe_desk import StripeDesk, catalog_sync, stripe_desk
from tallygate.wiring.tools import parsed_catalog

LEFT: Final = (SendState.REJECTED, SendState.TOO_OLD, SendState.AMBIGUOUS)

stripe = typer.Typer(
    no_args_is_help=True, help="Sync meters to Stripe; show and mend what is sent there."
)

# As many as a person names; a script's thousands would swell the audit log.
LISTED_MAX: Final = 100

Destination = Annotated[str, typer.Option(help="Which, where the catalog names several.")]
Ids = Annotated[list[int], typer.Argument(help="Sends, by their numbers.", show_default=False)]


@stripe.command("sync-catalog")
def sync_catalog(
    *,
    catalog: Annotated[
        Path | None,
        typer.Option(help="A catalog file, instead of what is applied.", dir_okay=False),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, after showing it.")] = False,
    destination: Destination = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what Stripe's meters and prices lack for the catalog; with --apply, make them so."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    _dsn(settings)
    work = _sync(settings, catalog, destination, apply=apply)
    planned, prices, done = run_audited(
        settings,
        "stripe sync-catalog",
        work,
        shows=not apply,
        request={"catalog": str(catalog or ""), "destination": destination, "apply": apply},
    )
    show([_steps(planned), _prices(prices)], as_json=as_json)
    if not as_json and not apply:
        typer.echo("Nothing was changed: give --apply to do it.", err=True)
    if not as_json and apply:
        typer.echo(f"{done} done.", err=True)
    if any(each.step is Step.CONFLICT for each in planned):
        raise typer.Exit(EXIT_FAILED)


@stripe.command()
def status(
    *,
    destination: Destination = "",
    limit: Annotated[int, typer.Option(help="How many to list.", min=1, max=10_000)] = 50,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show how many sends are not done, and those that are left to people or in doubt."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    depths, left = run(_status(settings, destination, limit))
    show([_depths(depths), _left(left)], as_json=as_json)


@stripe.command()
def retry(
    ids: Annotated[
        list[int] | None, typer.Argument(help="Only these sends.", show_default=False)
    ] = None,
    *,
    code: Annotated[str, typer.Option(help="Only those rejected with this code.")] = "",
    destination: Destination = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """After a fix: have rejected sends said again, under other identifiers."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)

    async def work() -> Mended:
        async with stripe_desk(_dsn(settings)) as desk:
            name = await _named(desk, destination)
            chosen = [IntentId(each) for each in ids] if ids else None
            return await desk.mend.retry(name, code=code, ids=chosen)

    _dsn(settings)
    asked = {"ids": _listed(ids or ()), "code": code, "destination": destination}
    mended = run_audited(settings, "stripe retry", work(), request=asked)
    row = (mended.again, mended.too_old, mended.doubtful, mended.without_customer)
    columns = ("sent again", "too old", "in doubt", "without customer")
    show([Sheet("retry", columns, [row])], as_json=as_json)


@stripe.command()
def settle(
    ids: Ids,
    *,
    reason: Annotated[
        str, typer.Option(help="What became of the usage, kept with them.", show_default=False)
    ],
    destination: Destination = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Close sends that are left to people: billed by hand, found at Stripe, or waived."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)

    async def work() -> int:
        async with stripe_desk(_dsn(settings)) as desk:
            name = await _named(desk, destination)
            return await desk.mend.close(name, [IntentId(each) for each in ids], reason)

    _dsn(settings)
    asked = {"ids": _listed(ids), "reason": reason, "destination": destination}
    count = run_audited(settings, "stripe settle", work(), request=asked)
    show([Sheet("settle", ("settled",), [(count,)])], as_json=as_json)


@stripe.command("send-shadow")
def send_shadow(
    *,
    since: Annotated[str, typer.Option(help="Usage from when on, ISO 8601.", show_default=False)],
    destination: Destination = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have what was recorded in shadow sent after all."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    from_us = _instant_us(since)

    async def work() -> int:
        async with stripe_desk(_dsn(settings)) as desk:
            name = await _named(desk, destination)
            return await desk.sends.leave_shadow(name, from_us, desk.clock.now_us())

    _dsn(settings)
    asked = {"since": since, "destination": destination}
    count = run_audited(settings, "stripe send-shadow", work(), request=asked)
    show([Sheet("send-shadow", ("to be sent",), [(count,)])], as_json=as_json)


@stripe.command("invoice-items")
def invoice_items(
    file: Annotated[
        Path, typer.Argument(help="Lines as JSON; see docs/stripe.md.", dir_okay=False, exists=True)
    ],
    *,
    destination: Destination = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have amounts that were worked out here put on invoices; each line once, however often."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)

    async def work() -> ItemCounts:
        lines = charge_lines(file.read_text())
        async with stripe_desk(_dsn(settings)) as desk:
            catalog = await desk.catalogs.effective(desk.clock.now_us())
            name = _only(catalog, destination)
            (account,) = [each for each in catalog.destinations if each.name == name]
            return await desk.items.intend(account, lines)

    _dsn(settings)
    asked = {"file": str(file), "sha256": sha256(file.read_bytes()).hexdigest()}
    counts = run_audited(
        settings,
        "stripe invoice-items",
        work(),
        request=asked | {"destination": destination},
    )
    row = (counts.new, counts.known, counts.without_customer)
    show([Sheet("items", ("new", "known", "without customer"), [row])], as_json=as_json)


async def _sync(
    settings: Settings, file: Path | None, destination: str, *, apply: bool
) -> tuple[list[MeterStep], list[PriceStep], int]:
    if file is not None:
        found = parsed_catalog(file).catalog
    else:
        async with stripe_desk(_dsn(settings)) as desk:
            found = await desk.catalogs.effective(desk.clock.now_us())
    name = _only(found, destination)
    async with catalog_sync(settings, found, name) as sync:
        planned = await sync.plan(found, name)
        prices = await sync.plan_prices(found, name)
        done = 0
        if apply:
            done = await sync.apply(planned) + await sync.apply_prices(prices)
        return planned, prices, done


async def _status(
    settings: Settings, destination: str, limit: int
) -> tuple[Sequence[StripeDepth], Sequence[LeftSend]]:
    async with stripe_desk(_dsn(settings)) as desk:
        name = await _named(desk, destination)
        depths = await desk.sends.depths(desk.clock.now_us() - LATE_US)
        left = await desk.sends.left(name, LEFT, limit=limit)
        return [each for each in depths if each.destination == name], left


async def _named(desk: StripeDesk, destination: str) -> str:
    return _only(await desk.catalogs.effective(desk.clock.now_us()), destination)


def _only(catalog: Catalog, destination: str) -> str:
    """Return the destination that was named, or the only one. Raises `InvalidField`."""
    names = [each.name for each in catalog.destinations if each.stripe is not None]
    if destination in names:
        return destination
    if destination or len(names) != 1:
        known = ", ".join(names) or "none"
        raise InvalidField(f"must be one of kind stripe: {known}", field="--destination")
    return names[0]


def _steps(planned: Sequence[MeterStep]) -> Sheet:
    rows = [
        (each.step.value, each.wanted.event_name, each.wanted.display_name, each.reason)
        for each in planned
    ]
    return Sheet("meters", ("step", "event name", "display name", "reason"), rows)


def _prices(planned: Sequence[PriceStep]) -> Sheet:
    rows = [(each.step.value, each.lookup_key, _asks(each.wanted), each.reason) for each in planned]
    return Sheet("prices", ("step", "lookup key", "asks for", "reason"), rows)


def _asks(price: AccountPrice | None) -> str:
    """Return what a price asks for, in smallest units, for people."""
    if price is None:
        return ""
    if price.unit is not None:
        each = f" per {price.divide_by}" if price.divide_by else ""
        return f"{plain(price.unit)} {price.currency}{each}"
    ends = (f"{plain(tier.unit)} to {tier.up_to or 'all'}" for tier in price.tiers)
    return f"{price.mode} {price.currency}: {', '.join(ends)}"


def _depths(depths: Sequence[StripeDepth]) -> Sheet:
    rows = [(each.state.value, each.sends, _shown(each.oldest_us), each.late) for each in depths]
    return Sheet("open", ("state", "sends", "oldest usage", "older than 30 days"), rows)


def _left(left: Sequence[LeftSend]) -> Sheet:
    rows = [
        (
            each.intent_id,
            each.state.value,
            each.code,
            each.intent.place.tenant_id,
            each.intent.place.customer,
            each.intent.place.meter,
            _shown(each.intent.place.start_us),
            each.intent.value,
            each.attempts,
            each.reason,
        )
        for each in left
    ]
    columns = (
        *("send", "state", "code", "tenant", "customer", "meter", "usage of"),
        *("value", "attempts", "reason"),
    )
    return Sheet("left", columns, rows)


def _listed(ids: Sequence[int]) -> str:
    """Return the numbers of sends as the audit log has them: the first, and how many there are."""
    shown = ", ".join(map(str, ids[:LISTED_MAX]))
    return shown if len(ids) <= LISTED_MAX else f"{shown}, … ({len(ids)} in all)"


def _dsn(settings: Settings) -> str:
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    return settings.postgres_dsn.get_secret_value()


def _instant_us(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time as 2027-01-31T12:00:00Z") from None
    return from_datetime(found if found.tzinfo is not None else found.replace(tzinfo=UTC))


def _shown(instant_us: int) -> str:
    return to_datetime(instant_us).strftime("%Y-%m-%dT%H:%M:%SZ")
