"""`tallygate reconcile`: what each step from counter to money has of usage, held to the ledger.

Guarantees: it changes nothing, but for the results that `--record` keeps and the repairs that
`--apply` carries out; exit code 0 says that nothing drifts and nothing is unknown, 1 that something
does or is.
Refuses to know: how figures are read, and how repairs append.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from tallygate.commands.audited import run_audited
from tallygate.commands.options import CatalogFile, Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, counting, errors, show
from tallygate.commands.reconcile_sheets import Tally, sheets_of
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.drift import spelled
from tallygate.domain.ids import TenantId
from tallygate.domain.reconcile import Reconciled
from tallygate.flow.reconcile import TENANTS_MAX
from tallygate.flow.reconcile_invoicing import AGAIN_US, RECENT_US, SilentInvoicing
from tallygate.ports.reconcile import RunPart
from tallygate.ports.reconcile_invoicing import DueAsked, InvoicedPeriod, Kind
from tallygate.settings import Settings
from tallygate.wiring.insight import now_us
from tallygate.wiring.reconciling import Reconciling, around_invoices, reconciling

ROWS: Final = 50
# Of periods that are due around invoices, in one run of the command.
DUE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is reconciled: whose, of which period or around which invoices, and what is done."""

    tenant: str
    period: str
    kind: Kind | None
    destinations: bool
    stripe: bool
    record: bool
    repair: bool
    apply: bool


def reconcile(
    tenant: Annotated[str, typer.Argument(help="Whose; everybody's without.")] = "",
    *,
    period: Annotated[
        str, typer.Option(help="The period that a date lies in; else the current and the last.")
    ] = "",
    before_invoice: Annotated[
        bool, typer.Option("--before-invoice", help="Closed periods that were not looked at yet.")
    ] = False,
    after_invoice: Annotated[
        bool, typer.Option("--after-invoice", help="Invoices that were not looked at yet.")
    ] = False,
    destinations: Annotated[
        bool, typer.Option("--destinations", help="Also what destinations were told; slow.")
    ] = False,
    stripe: Annotated[
        bool, typer.Option("--stripe", help="Also what Stripe has summed up: a read per meter.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the results, and have new drifts told.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Show what would be appended for each drift.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="With --repair: append it.")] = False,
    rows: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = ROWS,
    catalog: CatalogFile = None,
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold counters, rollups and money against the ledger; exit 1 if anything drifts."""
    settings = settings_of(config, postgres_dsn=postgres_dsn, redis_url=redis_url, catalog=catalog)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    if apply and not repair:
        raise typer.BadParameter("--apply goes with --repair")
    if (before_invoice and after_invoice) or ((before_invoice or after_invoice) and period):
        raise typer.BadParameter("one of --before-invoice, --after-invoice and --period")
    kind = Kind.BEFORE if before_invoice else Kind.AFTER if after_invoice else None
    asked = _Asked(tenant, period, kind, destinations, stripe, record, repair, apply)
    tally = run_audited(
        settings,
        "reconcile",
        _work(settings, asked, Tally(rows)),
        tenant_id=tenant,
        shows=not record and not apply,
        request={
            "period": period,
            "kind": kind.value if kind else "",
            "stripe": stripe,
            "record": record,
            "repair": repair,
            "apply": apply,
        },
    )
    show([*sheets_of(tally)], as_json=as_json)
    if not tally.clean:
        if repair and not apply:
            errors.print("Nothing was changed: --apply appends what would be done.")
        raise typer.Exit(EXIT_FAILED)


async def _work(settings: Settings, asked: _Asked, tally: Tally) -> Tally:
    tenant = ids.tenant_id(asked.tenant, "TENANT") if asked.tenant else None
    at_us = instant_us(asked.period, "--period")
    with counting("pairs reconciled") as note:
        async with reconciling(settings, told=asked.destinations, stripe=asked.stripe) as parts:

            async def add(results: Sequence[Reconciled]) -> None:
                tally.add(results)
                note(len(results))
                if asked.repair:
                    tally.repaired += await parts.repairs.run(results, apply=asked.apply)

            if asked.kind is not None:
                async for of, results in _due(parts, asked.kind, tenant):
                    if asked.record:
                        await around_invoices(parts, SilentInvoicing()).keep(
                            asked.kind, of, results
                        )
                    await add(results)
                return tally
            recorded = await _begun(parts) if asked.record else None
            after = ""
            async for tenants, results in _parts(parts, tenant, at_us):
                if recorded is not None:
                    last = tenant is not None or len(tenants) < TENANTS_MAX
                    until = tenants[-1] if tenants else after
                    part = RunPart(recorded, after, until, now_us(), results, last)
                    await parts.store.add(part)
                    after = until
                await add(results)
    return tally


async def _due(
    parts: Reconciling, kind: Kind, tenant: TenantId | None
) -> AsyncIterator[tuple[InvoicedPeriod, Sequence[Reconciled]]]:
    """Iterate over periods that are due around their invoices, each with its results."""
    at_us = now_us()
    asked = DueAsked(at_us - RECENT_US, at_us - AGAIN_US, DUE_MAX, tenant)
    for each in await parts.invoicing.due(kind, asked):
        yield each, await parts.reconcile.of_period(each.tenant_id, each.period)


async def _begun(parts: Reconciling) -> str:
    """Begin a run of its own; return its id."""
    made = f"manual-{spelled(now_us())}-{secrets.token_hex(4)}"
    await parts.store.begin(made)
    return made


async def _parts(
    parts: Reconciling, asked: TenantId | None, at_us: int | None
) -> AsyncIterator[tuple[Sequence[TenantId], Sequence[Reconciled]]]:
    """Iterate over pages of tenants, the last one shorter than a page, each with its results."""
    if asked is not None:
        periods = await parts.reconcile.periods([asked], at_us)
        yield [asked], await parts.reconcile.of(periods)
        return
    after = ""
    while True:
        tenants = await parts.reads.tenants(after, TENANTS_MAX)
        periods = await parts.reconcile.known(tenants, at_us)
        yield tenants, await parts.reconcile.of(periods)
        if len(tenants) < TENANTS_MAX:
            return
        after = tenants[-1]
