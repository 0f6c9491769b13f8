"""Who strikes on a game day: this script on an installation of its own, or people on theirs.

Owns the deeds of each fault, as a person has them described. Guarantees that what was struck is
healed before the next. Refuses to know the signs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from tallygate_fake_stripe import Behaviour, FakeStripe, UnknownCustomer
from tests.chaos.callers import METER
from tests.chaos.fleet import Worker
from tests.chaos.installation import BACK, QUICK, Installation, Shape, document, installation
from tests.chaos.rest import drained
from tests.e2e import catalogs
from tests.e2e.processes import tallygate
from tests.operating.board import Board, board
from tests.operating.games import Game
from tests.operating.load import PATIENT, Load
from tests.tls.certs import Authority

CUSTOMER: Final = "cus_open"
PAYER: Final = "open-0"
SECURE: Final = "serve-tls"
YOUNG_DAYS: Final = 30.0
MINUTES_LEFT: Final = 5 / 1440
DRAIN_S: Final = 300.0
FAILURES: Final = 100_000
"""More than any retries of a game: the receiver fails until it is told otherwise."""


class Hands(Protocol):
    """Does and undoes faults, and reads the metrics."""

    async def board(self) -> Board:
        """Return what the processes say now."""
        ...

    async def strike(self, game: Game) -> bool:
        """Do it; False where it cannot be done here."""
        ...

    async def heal(self, game: Game) -> None:
        """Undo it."""
        ...

    async def verdict(self) -> list[str]:
        """Return what is wrong when all is healed and drained."""
        ...


@dataclass(slots=True)
class Told:
    """People's hands: what to do is written, and done by whoever reads it."""

    addresses: Mapping[str, str | None]
    say: Callable[[str], None]

    async def board(self) -> Board:
        """Read the pages that were named."""
        return await board(self.addresses)

    async def strike(self, game: Game) -> bool:
        """Ask for it."""
        self.say(f"  do now: {game.do}")
        return True

    async def heal(self, game: Game) -> None:
        """Ask for it."""
        self.say(f"  now undo it: {game.undo}")

    async def verdict(self) -> list[str]:
        """Leave it to the verb, which needs the servers' addresses."""
        self.say("Now run: tallygate verify && tallygate reconcile")
        return []


@dataclass(slots=True)
class Ours:
    """This script's hands, on an installation that it has started."""

    place: Installation
    load: Load
    stripe: FakeStripe
    authority: Authority = field(default_factory=Authority)
    _ended: list[Worker] = field(default_factory=list)

    async def board(self) -> Board:
        """Read every page; who was ended is known to be down."""
        return await board(
            {
                name: f"127.0.0.1:{(await worker.ready())['ops']}" if worker.pid else None
                for name, worker in self.place.fleet.workers.items()
            }
        )

    async def strike(self, game: Game) -> bool:
        """Do it."""
        ground = self.place.ground
        match game.name:
            case "ingest" | "serve":
                self._ended = self.place.fleet.named(game.name)
                self._ended = self._ended if game.name == "ingest" else self._ended[:1]
                await asyncio.gather(*(each.kill() for each in self._ended))
            case "redis":
                await ground.redis.primary.server.kill()
            case "emptied":
                client = ground.redis.client()
                try:
                    await client.flushall()
                finally:
                    await client.aclose()
            case "postgres":
                await ground.postgres.kill()
            case "journal":
                for disk in self.place.disks.values():
                    disk.fill()
                return bool(self.place.disks)
            case "destination":
                self.place.receiver.fail_next(503, count=FAILURES)
            case "certificate":
                self.renew(MINUTES_LEFT)
            case _:
                await self._apply(paying=True)
        return True

    async def heal(self, game: Game) -> None:
        """Undo it."""
        ground = self.place.ground
        match game.name:
            case "ingest" | "serve":
                for each in self._ended:
                    await each.start()
                for each in self._ended:
                    await each.ready()
            case "redis":
                await ground.redis.primary.server.start()
            case "postgres":
                await ground.postgres.start()
            case "journal":
                for disk in self.place.disks.values():
                    disk.clear()
            case "destination":
                self.place.receiver.heal()
            case "certificate":
                self.renew(YOUNG_DAYS)
            case "stripe":
                self.stripe.add_customer(CUSTOMER)
                retried = await tallygate("stripe", "retry", **self._settings)
                assert retried.code == 0, retried.err

    async def verdict(self) -> list[str]:
        """Hold everything against the ledger, once the load is off and nothing waits."""
        if await drained(self.place, DRAIN_S) is None:
            return ["something still waits"]
        wrong = [f"{name} ended by itself" for name in self.place.fleet.unexpected]
        for verb in ("verify", "reconcile"):
            finished = await tallygate(verb, **self._settings)
            if finished.code:
                wrong.append(f"tallygate {verb}: {finished.out}{finished.err}")
        return wrong

    def renew(self, days: float) -> tuple[Path, Path]:
        """Give the sidecar that speaks TLS a certificate of so many days, and its key."""
        return self.authority.server(days=days).write(self.place.fleet.folder, SECURE)

    async def prepare(self) -> None:
        """Have a sidecar that speaks TLS, and a Stripe that knows the meter of the catalog."""
        certificate, key = self.renew(YOUNG_DAYS)
        redis = self.place.ground.to_redis[BACK].url
        given: dict[str, Any] = {"redis_url": redis, **QUICK, **PATIENT}
        given |= {"tls_cert_file": certificate, "tls_key_file": key}
        worker = await self.place.fleet.start(SECURE, "serve", **given)
        await worker.ready()
        made = await tallygate("stripe", "sync-catalog", "--apply", **self._settings)
        assert made.code == 0, made.err

    @property
    def _settings(self) -> dict[str, Any]:
        ground = self.place.ground
        return {"redis_url": ground.to_redis[BACK].url, "postgres_dsn": ground.near_dsn}

    async def _apply(self, *, paying: bool) -> None:
        folder = self.place.fleet.folder
        text = catalog(self.place.receiver.url, self.stripe.url, folder, paying=paying)
        ready = await self.place.fleet.workers["control"].ready()
        file = catalogs.write(folder, text)
        applied = await tallygate("apply", "-f", file, "--control-address", ready["grpc"])
        assert applied.code == 0, applied.err + applied.out


def catalog(receiver: str, stripe: str, folder: Path, *, paying: bool) -> str:
    """Return the harness's catalog with a Stripe, of which one tenant may be a customer."""
    parts = yaml.safe_load(document(receiver))
    since = datetime.now(UTC).date().isoformat()
    parts["meters"][METER]["stripe"] = {
        "way": "meter_events", "event_name": METER, "since": since, "window": "minute",
        "early": True,
    }  # fmt: skip
    key = folder / "stripe.key"
    key.write_text("sk_test_game_day")
    parts["destinations"]["stripe"] = {
        "kind": "stripe", "url": stripe, "secret": {"file": str(key)},
    }  # fmt: skip
    parts["tenants"][PAYER] = {"plan": "open"}
    if paying:
        parts["tenants"][PAYER]["stripe_customer_id"] = CUSTOMER
    return yaml.safe_dump(parts)


@asynccontextmanager
async def ours(folder: Path, seed: int, per_s: float) -> AsyncIterator[Ours]:
    """Lend our hands on an installation of our own."""
    shape = Shape(relays=1, replica=False, settings={"stripe_plan_ms": 1_000, **PATIENT})
    async with AsyncExitStack() as stack:
        behaviour = Behaviour(unknown_customer=UnknownCustomer.REFUSE)
        fake = await stack.enter_async_context(FakeStripe(behaviour=behaviour))
        place = await stack.enter_async_context(
            installation(
                folder, shape, seed=seed,
                text=lambda url: catalog(url, fake.url, folder, paying=False),
            )
        )  # fmt: skip
        lines = [await place.line(name) for name in sorted(place.sockets)]
        lent = Ours(place, Load(lines, seed, per_s), fake)
        await lent.prepare()
        yield lent
