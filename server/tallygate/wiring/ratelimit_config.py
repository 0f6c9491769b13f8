"""An import of envoyproxy/ratelimit's configuration, put together.

Guarantees: the document that is given reads back as a catalog without faults, and as the same one.
Refuses to know: where it is shown or kept.
"""

from collections.abc import Sequence
from pathlib import Path

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.catalog.ratelimit_config import document_of, read_ratelimit_configs
from tallygate.domain.ratelimit_config import imported


def catalog_of_configs(paths: Sequence[Path]) -> tuple[str, Sequence[tuple[str, str]]]:
    """Return a catalog document, and what it does not have, by path.

    Raises `CatalogInvalid` with the faults of the files.
    """
    made = imported(read_ratelimit_configs(paths))
    document = document_of(made)
    parsed = parse(document)
    assert parsed.catalog == made.catalog
    assert parsed.tenants == made.tenants
    return document, made.notes
