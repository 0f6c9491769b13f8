"""`tallygate import-ratelimit-config`: envoyproxy/ratelimit's configuration as a catalog.

Guarantees: the same files give the same catalog; what it does not have is told, each with its
place. Nothing is applied.
Refuses to know: what the files hold.
"""

from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.output import EXIT_FAILED, Sheet, errors, show
from tallygate.domain.errors import CatalogInvalid
from tallygate.wiring.ratelimit_config import catalog_of_configs

# Of each import, whatever the files say.
ALWAYS = (
    ("hits beyond a limit", "are not counted; there they are, until the window ends"),
    ("a limit sent along by Envoy", "is refused; there it replaces the configuration's"),
)


def import_ratelimit_config(
    files: Annotated[
        list[Path], typer.Argument(help="Files of its configuration.", exists=True, dir_okay=False)
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the catalog.")
    ] = None,
) -> None:
    """Turn the configuration of envoyproxy/ratelimit into a catalog that decides the same."""
    try:
        document, notes = catalog_of_configs(files)
    except CatalogInvalid as error:
        rows = [(each.line, each.path, each.message, each.suggestion) for each in error.faults]
        show([Sheet("faults", ("line", "path", "fault", "did you mean"), rows)], as_json=False)
        raise typer.Exit(EXIT_FAILED) from None
    if output is None:
        print(document, end="")  # noqa: T201  the document is the command's output
    elif not output.exists() or output.read_text(encoding="utf-8") != document:
        output.write_text(document, encoding="utf-8")
    for place, what in (*notes, *ALWAYS):
        errors.print(
            f"not the same: {place}: {what}", markup=False, highlight=False, soft_wrap=True
        )
