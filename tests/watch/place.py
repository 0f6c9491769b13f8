"""An installation with something to see: priced plans, a webhook, a fake Stripe, and steady calls.

Owns its catalog and its load. Guarantees that everything is ended with its block. Refuses to know
who looks.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from tallygate_fake_stripe import FakeStripe
from tests.chaos import installation as chaos
from tests.chaos.book import Book
from tests.chaos.callers import App
from tests.chaos.installation import Installation, Shape
from tests.e2e.processes import tallygate

CALLS_PER_S: Final = 60.0
"""Of all apps; enough for lines, little enough for two cores."""

APPS: Final = 6
TENANTS: Final = 6
NAMED: Final = ("open-0", "open-1", "open-2", "record-0", "batch-0")
SETTINGS: Final[dict[str, Any]] = {
    "stripe_plan_ms": 2_000,
    "usage_figures_every_s": 5,
    "revenue_preview_every_s": 5,
    "usage_figures_tenants": ",".join(NAMED),
}


@dataclass(slots=True)
class Place:
    """What runs, and the book of what was called."""

    installation: Installation
    book: Book


@asynccontextmanager
async def busy(folder: Path, seed: int) -> AsyncIterator[Place]:
    """Lend an installation under steady load."""
    key = folder / "stripe.key"
    key.write_text("sk_test_watch")
    async with AsyncExitStack() as stack:
        customers = [f"cus_{number}" for number in range(TENANTS)]
        stripe = await stack.enter_async_context(FakeStripe(customers=customers))
        shape = Shape(1, 1, 1, replica=False, disks=False, settings=SETTINGS)
        made = await stack.enter_async_context(
            chaos.installation(
                folder, shape, seed=seed, text=lambda url: catalog(url, stripe.url, key)
            )
        )
        # Stripe takes no event of a meter that it does not know.
        synced = await tallygate(
            "stripe", "sync-catalog", "--apply", postgres_dsn=made.ground.near_dsn
        )
        assert synced.code == 0, synced.err + synced.out
        book = Book(made.secrets)
        await stack.enter_async_context(_called(made, book, seed))
        yield Place(made, book)


def catalog(webhook: str, stripe: str, key: Path) -> str:
    """Return the catalog: that of the fault runs, with prices, and a Stripe to tell."""
    document = yaml.safe_load(chaos.document(webhook))
    today = datetime.now(UTC).date().isoformat()
    document["meters"]["requests"]["stripe"] = {
        "way": "meter_events", "event_name": "requests", "since": today,
        "window": "minute", "settle": "1s",
    }  # fmt: skip
    for plan, currency, amount in (("open", "EUR", 0.02), ("strict", "USD", 0.05)):
        document["plans"][plan]["prices"] = [
            {"id": "requests", "model": "per_unit", "meter": "requests", "amount": amount}
        ]
        document["plans"][plan]["terms"] = {"currency": currency}
    # The small limits' hundreds of tenants would only make rounds longer.
    document["tenants"] = {
        f"{kind}-{number}": {
            "plan": {"strict": "strict", "budget": "budget", "allow": "allow"}.get(kind, "open"),
            "currency": "USD" if kind == "strict" else "EUR",
            "stripe_customer_id": f"cus_{number}",
        }
        for kind in ("open", "record", "batch", "hold", "refund", "strict", "budget", "allow")
        for number in range(TENANTS)
    }
    document["destinations"]["stripe"] = {
        "kind": "stripe", "secret": {"file": str(key)}, "mode": "sandbox", "url": stripe,
    }  # fmt: skip
    return yaml.safe_dump(document)


@asynccontextmanager
async def _called(made: Installation, book: Book, seed: int) -> AsyncIterator[None]:
    lines = [await made.line(name) for name in sorted(made.sockets)]
    done = asyncio.Event()
    chance = random.Random(seed)

    def tenant(kind: str) -> str:
        # Few are large and many are small, as with customers.
        return f"{kind}-{min(int(chance.expovariate(0.4)), TENANTS - 1)}"

    apps = [
        App(
            f"{seed}-{number}", lines[number % len(lines)], book,
            random.Random(f"{seed} {number}"), tenant,
        )
        for number in range(APPS)
    ]  # fmt: skip
    running = [asyncio.create_task(app.run(done, CALLS_PER_S / APPS)) for app in apps]
    try:
        yield
        done.set()
        await asyncio.gather(*running)
    finally:
        for each in running:
            each.cancel()
