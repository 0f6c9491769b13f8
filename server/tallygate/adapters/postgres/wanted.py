"""Since when and until when each destination was to be told what.

Guarantees: within what is returned, whatever was accepted had to be told.
Refuses to know: messages, and whether they were delivered.
"""

import json
from typing import Final

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query

# A destination's start and end are known to the transaction that wrote them. Batches that were
# under way then may have been written either way, and Redis' clock is not Postgres'.
MARGIN_US: Final = 10_000_000
NEVER_US: Final = 253_402_300_799_999_999

Stretch = tuple[str, str, int, int]
"""A destination, a type of message, and from when to when it was to be told."""


async def wanted(connection: Lent) -> list[Stretch]:
    """Return from when to when each destination was to be told each type, margins left out.

    Destinations change in the transaction that writes a version of the catalog.
    """
    rows = await connection.fetch(query("verify_catalogs"))
    began: dict[tuple[str, str], int] = {}
    found: list[Stretch] = []
    for row in rows:
        now = {
            (each["name"], kind)
            for each in json.loads(row["destinations"])
            for kind in each["types"]
        }
        at_us = row["created_at_us"]
        gone = began.keys() - now
        found += [(*each, began.pop(each) + MARGIN_US, at_us - MARGIN_US) for each in gone]
        for new in now - began.keys():
            began[new] = at_us
    found += [(*each, at_us + MARGIN_US, NEVER_US) for each, at_us in began.items()]
    return sorted(each for each in found if each[2] < each[3])
