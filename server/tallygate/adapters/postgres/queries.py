"""The named queries: one file each under `sql/`, with its purpose in the first line.

Guarantees: every query that is run is a file, so that a test can prepare them all.
Refuses to know: when they run.
"""

from functools import cache
from importlib import resources


@cache
def query(name: str) -> str:
    """Return the text of `sql/NAME.sql`."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_text()


def names() -> list[str]:
    """Return the name of every query, sorted."""
    folder = resources.files(__package__).joinpath("sql")
    return sorted(
        entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql")
    )
