"""Refuses to read events of which some are in archives alone.

Guarantees: asked in the snapshot of the reading itself, so that no month goes in between.
Refuses to know: what is read.
"""

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.ports.export import EventsArchived


async def refuse_archived(
    connection: Lent, from_us: int | None, to_us: int | None, field: str = ""
) -> None:
    """Do nothing where the ledger has all events of a stretch. Raises `EventsArchived`."""
    dropped = await connection.fetch(query("export_dropped"), from_us, to_us)
    if dropped:
        files = ", ".join(f"{row['month']} in {row['file']}" for row in dropped)
        raise EventsArchived(f"events of this range are in archives alone: {files}", field=field)
