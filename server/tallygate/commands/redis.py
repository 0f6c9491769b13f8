"""`tallygate redis acl`: the users of Redis with no more rights than each process needs.

Guarantees: passwords are read from files and printed as digests alone.
Refuses to know: what the rights are.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from tallygate.commands.output import fail
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.wiring import rights

PASSWORD_BYTES_MAX: Final = 4_096

redis = typer.Typer(no_args_is_help=True, help="Set up the Redis that counts.")


@redis.callback()
def nothing() -> None:
    """Set up the Redis that counts."""


@redis.command("acl")
def acl(
    *,
    passwords: Annotated[
        Path,
        typer.Option(
            help="A folder with a file for each user wanted, named serve, ingest, control or read:"
            " its password.",
            file_okay=False,
            exists=True,
        ),
    ],
    server: Annotated[
        str, typer.Option("--redis", help="The server's version: before 7.0, rights are coarser.")
    ] = "7.0",
) -> None:
    """Print lines of an ACL file."""
    if not server.partition(".")[0].isdigit():
        raise typer.BadParameter("must be a version, as 7.2", param_hint="--redis")
    try:
        found = {
            role: _password(passwords / role)
            for role in rights.REDIS_ROLES
            if (passwords / role).is_file()
        }
        if not found:
            roles = ", ".join(rights.REDIS_ROLES)
            raise InvalidField(f"has no file named one of {roles}", field="--passwords")
        lines = rights.acl_lines(found, server)
    except TallygateError as error:
        fail(error)
    print("\n".join(lines))  # noqa: T201  the lines are the command's output


def _password(path: Path) -> str:
    try:
        with path.open("rb") as file:
            password = file.read(PASSWORD_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise InvalidField(f"{path} cannot be read", field="--passwords") from None
    if not password:
        raise InvalidField(f"{path} is empty", field="--passwords")
    return password
