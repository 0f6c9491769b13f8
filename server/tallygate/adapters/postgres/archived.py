"""Events that are in an archive alone: nothing that reads events is told less than there was.

Guarantees: whoever asks for events of a month that was dropped, of a tenant and meter that had any
in it, is refused and told the file.
Refuses to know: who asks, and what files hold.
"""

from collections.abc import Sequence

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.ports.export import EventsArchived


async def archives_of(
    connection: Lent,
    tenant_id: str | None,
    meter: str | None,
    from_us: int | None,
    to_us: int | None,
) -> Sequence[str]:
    """Return in which archives' files usage of a stretch is alone, None being no bound."""
    rows = await connection.fetch(query("archived_usage"), tenant_id, meter, from_us, to_us)
    return [f"{row['month']} in {row['file']}" for row in rows]


async def refuse_archived(
    connection: Lent,
    tenant_id: str | None,
    meter: str | None,
    from_us: int | None,
    to_us: int | None,
) -> None:
    """Raise `EventsArchived` where usage of a stretch is in an archive alone."""
    found = await archives_of(connection, tenant_id, meter, from_us, to_us)
    if found:
        files = ", ".join(found)
        raise EventsArchived(f"events of this range are in archives alone: {files}", field="from")
