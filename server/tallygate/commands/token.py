"""`tallygate token`: keys and tokens for control, where no identity provider makes them.

Guarantees: a private key is shown nowhere, and a token only by `mint` where no file is named.
Refuses to know: formats, and what roles may do.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from tallygate.commands.options import Config, Json, settings_of
from tallygate.commands.output import Sheet, errors, fail, run, show
from tallygate.domain.caller import AdminRole, Tenants
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.trail import actor_name
from tallygate.wiring import tokens

HOURS_MAX: Final = 24 * 366
TOKEN_BYTES_MAX: Final = 64 * 1024

token = typer.Typer(no_args_is_help=True, help="Make keys and tokens for control.")


@token.command("keys")
def make_keys(
    *,
    out: Annotated[Path, typer.Option(help="The folder of keys.json and signing.pem.")],
    algorithm: Annotated[str, typer.Option(help="ES256, EdDSA or RS256.")] = "ES256",
    retire: Annotated[str, typer.Option(help="Make none; trust this key no more.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key to sign tokens with; those of earlier keys stay good until these are retired."""
    try:
        if retire:
            tokens.retire_key(out, retire)
            row = (retire, "retired")
        else:
            row = (tokens.add_key(out, algorithm), "made")
    except TallygateError as error:
        fail(error)
    show([Sheet("keys", ("key", "state"), [row])], as_json=as_json)


@token.command("mint")
def mint(
    *,
    key: Annotated[Path, typer.Option(help="The private key, signing.pem.", dir_okay=False)],
    subject: Annotated[str, typer.Option(help="Whose token: a name for the audit log.")],
    role: Annotated[list[str], typer.Option(help="reader, operator, finance or admin; again.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Only these tenants, as acme or team-*; again.")
    ] = None,
    hours: Annotated[int, typer.Option(help="How long it is good.", min=1, max=HOURS_MAX)] = 12,
    out: Annotated[Path | None, typer.Option(help="Where to; else it is printed.")] = None,
    config: Config = None,
) -> None:
    """Make a token."""
    settings = settings_of(config)
    known = [each.value for each in AdminRole]
    for each in role:
        if each not in known:
            raise typer.BadParameter(f"must be one of {', '.join(known)}", param_hint="--role")
    try:
        actor_name(subject, "--subject")
        Tenants.of(tenant or [], "--tenant")
        roles = [AdminRole(each) for each in dict.fromkeys(role)]
        granted = tokens.Granted(subject, roles, tenant or [], hours * 3_600)
        made = tokens.mint(settings, key, granted)
        if out is not None:
            tokens.write_token(out, made)
    except TallygateError as error:
        fail(error)
    if out is None:
        print(made)  # noqa: T201  the token is the command's output
    else:
        errors.print(f"The token is in {out}.", markup=False)


@token.command("check")
def check(
    *,
    file: Annotated[
        Path | None, typer.Option(help="The token; else TALLYGATE_TOKEN_FILE.", dir_okay=False)
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say whose token it is, as control would judge it; exit 1 where it is refused."""
    settings = settings_of(config)
    path = file or settings.token_file
    if path is None:
        fail(InvalidField("is required", field="--file"))
    try:
        text = path.read_bytes()[:TOKEN_BYTES_MAX].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        fail(InvalidField(f"{path} cannot be read", field="--file"))
    caller = run(tokens.verified(settings, text))
    tenants = [*sorted(caller.tenants.names), *(f"{each}*" for each in caller.tenants.prefixes)]
    rows = [
        ("subject", caller.name),
        ("roles", " ".join(sorted(caller.roles))),
        ("tenants", "all" if caller.tenants.every else " ".join(tenants)),
    ]
    show([Sheet("token", ("name", "value"), rows)], as_json=as_json)
