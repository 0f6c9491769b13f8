"""What commands write to the audit log and read of it.

Guarantees: a command that changes something, or takes data away, does not begin before the log has
that it was asked for. On a standby, which takes no writes, only commands that show something run,
and say that they are not in the log.
Refuses to know: what commands do.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tallygate.adapters.log import redact_value
from tallygate.adapters.postgres.pool import PoolOptions, Postgres, ReadOnly
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.domain.trail import TrailEntry
from tallygate.flow.trail import Trail
from tallygate.ports.trail import TrailLog
from tallygate.settings import Settings

ROLE = "command"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was asked for, and by whom; `unaudited` is told why it is not in the log."""

    actor: str
    action: str
    tenant_id: str = ""
    request: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    unaudited: Callable[[str], None] | None = None

    def entry(self) -> TrailEntry:
        """Return it as an entry of the log."""
        text = json.dumps(redact_value(self.request), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return TrailEntry(
            self.actor, ROLE, self.action, self.tenant_id, request=text, request_sha256=digest
        )


@asynccontextmanager
async def audited(settings: Settings, asked: Asked) -> AsyncIterator[None]:
    """Do what was asked for between its two entries. Raises what the log raises."""
    async with trail_log(settings) as log, AsyncExitStack() as stack:
        trail = Trail(log)
        stack.push_async_callback(trail.close)
        try:
            await stack.enter_async_context(trail.change(asked.entry()))
        except ReadOnly:
            if asked.unaudited is None:
                raise
            asked.unaudited("This server takes no writes, so that this is in no audit log.")
        yield


@asynccontextmanager
async def trail_log(settings: Settings) -> AsyncIterator[TrailLog]:
    """Lend the audit log."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(
            connections_max=1,
            connect_timeout_ms=settings.postgres_connect_timeout_ms,
            statement_timeout_ms=settings.postgres_statement_timeout_ms,
        ),
    )
    try:
        yield PostgresTrailLog(postgres)
    finally:
        await postgres.close()
