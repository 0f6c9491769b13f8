"""Commands with the audit log around them.

Guarantees: what a command is asked for is in the log before it does it; a fault of its arguments,
found before that, is not.
Refuses to know: what commands do.
"""

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import typer

from tallygate.commands.actor import os_actor
from tallygate.commands.output import errors, run
from tallygate.domain.ids import ID_LENGTH_MAX
from tallygate.settings import Settings
from tallygate.wiring.trail import Asked, audited

Result = TypeVar("Result")


def run_audited(
    settings: Settings,
    action: str,
    work: Coroutine[Any, Any, Result],
    *,
    tenant_id: str = "",
    shows: bool = False,
    request: Mapping[str, str | int | bool | None] | None = None,
) -> Result:
    """Run a command's work between its two entries; what goes wrong is said in a line.

    One that only `shows` runs on a standby as well, and says that it is in no log.
    """
    told = _warn if shows else None
    # What was typed need not be UTF-8, nor an id: the work says so.
    subject = tenant_id.encode(errors="replace").decode()[:ID_LENGTH_MAX]
    asked = Asked(os_actor(), action, subject, request or {}, told)

    async def between() -> Result:
        try:
            async with audited(settings, asked):
                return await work
        finally:
            # Where it was not begun, nobody will ever wait for it.
            work.close()

    return run(between())


def needs_postgres(settings: Settings) -> str:
    """Return the ledger's address; without one, the command is over."""
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    return settings.postgres_dsn.get_secret_value()


def _warn(text: str) -> None:
    errors.print(text, markup=False)
