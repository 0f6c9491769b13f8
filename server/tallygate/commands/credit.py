"""The verbs about prepaid credits and resets, as the admin service does them.

Guarantees: an id that was made up is said on stderr before the call, so that a call without an
answer can be made again under it; times without an offset are UTC.
Refuses to know: balances and counters.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from tallygate.commands.asking import caller, instant, shown
from tallygate.commands.channel import Target, channel
from tallygate.commands.options import Config, ControlAddress, Json, settings_of
from tallygate.commands.output import Sheet, errors, run, show
from tallygate.gen.v1 import admin_pb2_grpc, credit_pb2

CALL_TIMEOUT_S: Final = 30.0
PAGE: Final = 1_000
ID_BYTES: Final = 8
COLUMNS: Final = (
    *("limit", "grant", "amount", "remaining", "priority"),
    *("starts", "expires", "reason", "actor"),
)

credit = typer.Typer(no_args_is_help=True, help="Grant and list prepaid credits.")

TenantId = Annotated[str, typer.Argument(help="Whose.", show_default=False)]
Actor = Annotated[str, typer.Option(help="Who asks, for the record; by default who you are.")]


@credit.command()
def grant(
    tenant: TenantId,
    limit: Annotated[str, typer.Argument(help="A balance of its plan.", show_default=False)],
    amount: Annotated[int, typer.Argument(help="Units to add.", min=1, show_default=False)],
    *,
    grant_id: Annotated[str, typer.Option("--id", help="Adds once, however often.")] = "",
    priority: Annotated[int, typer.Option(help="Lower ones are used up first.")] = 0,
    starts: Annotated[str, typer.Option(help="From when, ISO 8601; by default now.")] = "",
    expires: Annotated[str, typer.Option(help="Until when; by default for ever.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    actor: Actor = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add prepaid credits to a tenant's balance; the same --id adds once."""
    settings = settings_of(config, control_address=control_address)
    request = credit_pb2.GrantCreditRequest(
        tenant_id=tenant,
        limit_id=limit,
        grant_id=grant_id or _made_up("--id"),
        amount=amount,
        priority=priority,
        reason=reason,
        actor=actor or caller(),
    )
    for text, field in ((starts, request.starts_at), (expires, request.expires_at)):
        if text:
            field.FromDatetime(instant(text))
    reply = run(_grant(Target.control(settings), request))
    sheets = [_sheet([reply.grant])]
    if reply.replayed:
        errors.print("This grant had been made before; nothing was added.")
    show(sheets, as_json=as_json)


@credit.command("list")
def list_credits(
    tenant: TenantId,
    *,
    limit: Annotated[str, typer.Option(help="Only this balance.")] = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List a tenant's grants in burn-down order, with what is left of each."""
    settings = settings_of(config, control_address=control_address)
    show([_sheet(run(_all(Target.control(settings), tenant, limit)))], as_json=as_json)


def reset(
    tenant: TenantId,
    limit: Annotated[str, typer.Argument(help="A limit of its plan.", show_default=False)],
    *,
    reason: Annotated[str, typer.Option(help="Why, kept in the audit.", show_default=False)],
    dimension: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, for a limit per dimension.")
    ] = None,
    operation_id: Annotated[str, typer.Option("--id", help="Resets once, however often.")] = "",
    actor: Actor = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Set what a tenant has used of a limit to what reservations hold."""
    settings = settings_of(config, control_address=control_address)
    request = credit_pb2.ResetLimitRequest(
        tenant_id=tenant,
        limit_id=limit,
        dimensions=dict(_pair(each) for each in dimension or ()),
        reason=reason,
        actor=actor or caller(),
        operation_id=operation_id or _made_up("--id"),
    )
    reply = run(_reset(Target.control(settings), request))
    row = (tenant, limit, reply.used_before, reply.used_after, reply.replayed)
    columns = ("tenant", "limit", "used before", "used after", "repeat")
    show([Sheet("reset", columns, [row])], as_json=as_json)


async def _grant(
    control: Target, request: credit_pb2.GrantCreditRequest
) -> credit_pb2.GrantCreditResponse:
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        return await stub.GrantCredit(request, timeout=CALL_TIMEOUT_S)


async def _all(control: Target, tenant: str, limit: str) -> list[credit_pb2.CreditGrant]:
    found: list[credit_pb2.CreditGrant] = []
    request = credit_pb2.ListCreditsRequest(tenant_id=tenant, limit_id=limit, page_size=PAGE)
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        while True:
            page = await stub.ListCredits(request, timeout=CALL_TIMEOUT_S)
            found += page.grants
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found


async def _reset(
    control: Target, request: credit_pb2.ResetLimitRequest
) -> credit_pb2.ResetLimitResponse:
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        return await stub.ResetLimit(request, timeout=CALL_TIMEOUT_S)


def _sheet(grants: Sequence[credit_pb2.CreditGrant]) -> Sheet:
    rows = [
        (
            each.limit_id,
            each.grant_id,
            each.amount,
            each.remaining,
            each.priority,
            shown(each.starts_at),
            shown(each.expires_at) if each.HasField("expires_at") else "never",
            each.reason,
            each.actor,
        )
        for each in grants
    ]
    return Sheet("credits", COLUMNS, rows)


def _made_up(option: str) -> str:
    made = secrets.token_hex(ID_BYTES)
    errors.print(f"{option} {made}", markup=False)
    return made


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--dimension")
    return key, value
