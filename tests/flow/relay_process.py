"""A relay in a process of its own that hangs between a send and its mark, to be killed there.

Run as `python -m tests.flow.relay_process DSN URL LEASE_MS`; it writes `sent` once it hangs.
"""

import asyncio
import sys
from collections.abc import Sequence

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.webhook.sender import WebhookSender
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.ports import Delivery
from tests.flow.relay_parts import CountingObserver, SystemClock, webhook_config


class HangingOutbox(PostgresOutbox):
    """Never marks anything as delivered."""

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Say so, and wait for the end."""
        sys.stdout.write("sent\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
        return 0


async def main(dsn: str, url: str, lease_ms: int) -> None:
    """Claim, send, and hang."""
    sender = WebhookSender(webhook_config(url), SystemClock())
    options = RelayOptions(lease_ms=lease_ms)
    await Relay(HangingOutbox(Postgres(dsn)), sender, options, CountingObserver()).run_once()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
