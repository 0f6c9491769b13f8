"""A whole installation: servers, processes, a catalog, and a destination that takes messages.

Owns its shape. Guarantees that everything is ready when it is lent, and ended afterwards. Refuses
to know the calls that are made to it.
"""

import base64
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tallygate.testing.webhook import WebhookReceiver
from tests.chaos.callers import Line, line
from tests.chaos.disk import SmallDisk, small_disk
from tests.chaos.fleet import START_TIMEOUT_S, Fleet, Worker, fleet
from tests.chaos.ground import Ground, ground
from tests.e2e import catalogs
from tests.e2e.processes import tallygate
from tests.servers import eventually

BACK: Final = "back"
"""The way to Redis of what is no sidecar."""

STRICT_UNITS: Final = 150
BUDGET_UNITS: Final = 150
LOCAL_BUDGET: Final = 20
TENANTS_PER_KIND: Final = 400
SECRET_VARIABLE: Final = "CHAOS_WEBHOOK_SECRET"
DESTINATION: Final = "billing"

QUICK: Final[dict[str, Any]] = {
    "postgres_statement_timeout_ms": 3_000,
    "postgres_connect_timeout_ms": 2_000,
    "ingest_claim_idle_ms": 3_001,
    "relay_lease_ms": 3_000,
    "relay_send_timeout_ms": 1_000,
    "relay_backoff_ms": 100,
    "relay_backoff_max_ms": 1_000,
    "relay_attempts_max": 1_000,
    "relay_poll_ms": 100,
    "drain_grace_ms": 3_000,
}
"""Waits cut short, so that minutes show what else took hours."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many there are of each process, and which faults need room of their own."""

    sidecars: int = 2
    ingesters: int = 2
    relays: int = 2
    replica: bool = True
    disks: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Installation:
    """What runs. `secrets` must be seen nowhere."""

    ground: Ground
    fleet: Fleet
    receiver: WebhookReceiver
    sockets: dict[str, str]
    disks: dict[str, SmallDisk]
    secrets: tuple[str, ...]
    stack: AsyncExitStack

    async def line(self, sidecar: str) -> Line:
        """Open a channel to a sidecar, closed with the installation."""
        return await self.stack.enter_async_context(line(sidecar, self.sockets[sidecar]))


def document(url: str) -> str:
    """Return the catalog: a plan for each way of being limited, and a destination."""

    def monthly(limit: int | str, **more: Any) -> dict[str, Any]:
        return {
            "id": "monthly", "meter": "requests", "kind": "window", "period": "month",
            "limit": limit, **more,
        }  # fmt: skip

    def plan(*limits: dict[str, Any]) -> dict[str, Any]:
        return {"limits": list(limits)}

    rate = {"id": "rate", "meter": "requests", "kind": "rate", "period": "second", "limit": 100_000}
    trailing = {"id": "trailing", "meter": "requests", "kind": "sliding", "duration": "1h"}
    plans = {
        "open": plan(monthly(10**12), rate, {**trailing, "limit": 10**9}),
        "strict": plan(monthly(STRICT_UNITS)),
        "budget": plan(monthly(BUDGET_UNITS, on_outage=f"local_budget({LOCAL_BUDGET})")),
        "allow": plan(monthly(10**12, on_outage="allow")),
    }
    tenants = {
        f"{kind}-{number}": {"plan": kind}
        for kind in ("strict", "budget")
        for number in range(TENANTS_PER_KIND)
    }
    tenants |= {f"allow-{number}": {"plan": "allow"} for number in range(8)}
    return yaml.safe_dump(
        {
            "version": 1,
            "default_plan": "open",
            "meters": {"requests": {"aggregation": "sum"}},
            "plans": plans,
            "tenants": tenants,
            "destinations": {
                DESTINATION: {
                    "kind": "webhook", "url": url, "types": ["usage.batch"],
                    "secret": {"env": SECRET_VARIABLE},
                }
            },
        }
    )  # fmt: skip


@asynccontextmanager
async def installation(
    folder: Path, shape: Shape, *, seed: int = 0, text: Callable[[str], str] = document
) -> AsyncIterator[Installation]:
    """Start everything, apply a catalog, and wait until every process serves."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    names = [f"serve-{number}" for number in range(shape.sidecars)]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        base = await enter(ground(folder, BACK, *names, seed=seed, replica=shape.replica))
        receiver = await enter(WebhookReceiver(secret))
        # The oracle looks at every message, and not at the newest alone.
        receiver.received = deque()
        migrated = await tallygate("migrate", postgres_dsn=base.near_dsn)
        assert migrated.code == 0, migrated.err
        disks: dict[str, SmallDisk] = {}
        if shape.disks:
            disk = stack.enter_context(small_disk(folder / names[0]))
            disks |= {} if disk is None else {names[0]: disk}
        them = await enter(fleet(folder))
        sockets = {name: f"unix:{folder}/{name}.sock" for name in names}
        place = Installation(base, them, receiver, sockets, disks, (secret,), stack)
        await _start(place, shape, text(receiver.url), secret)
        yield place


async def _start(place: Installation, shape: Shape, text: str, secret: str) -> None:
    them, base = place.fleet, place.ground
    back = {"redis_url": base.to_redis[BACK].url, "postgres_dsn": base.dsn, **QUICK}
    back |= shape.settings
    control = await them.start("control", "control", **back)
    file = catalogs.write(them.folder, text)
    ready = await control.ready()
    applied = await tallygate("apply", "-f", file, "--control-address", ready["grpc"])
    assert applied.code == 0, applied.err + applied.out
    for number in range(shape.ingesters):
        await them.start(f"ingest-{number}", "ingest", **back)
    for number in range(shape.relays):
        await them.start(f"relay-{number}", "relay", environ={SECRET_VARIABLE: secret}, **back)
    for name, socket in place.sockets.items():
        settings = {"redis_url": base.to_redis[name].url, **QUICK, **shape.settings}
        await them.start(name, "serve", grpc_address=socket, **settings)
    for worker in them.workers.values():
        await worker.ready()

        async def serves(worker: Worker = worker) -> bool:
            return (await worker.page("/readyz"))[0] == 200

        await eventually(serves, START_TIMEOUT_S, what=f"{worker.name} to be ready")
