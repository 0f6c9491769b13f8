"""Secrets that change in files: what is good is taken over once, what is not changes nothing."""

from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.prometheus.flows import LoopMetrics, RelayMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.credentials import RedisCredentials
from tallygate.domain.catalog import Destination
from tallygate.domain.errors import BackendUnavailable, InvalidField, TallygateError
from tallygate.settings import Settings
from tallygate.settings_sources import load_settings
from tallygate.settings_types import SecretUrl
from tallygate.testing.outbox import FakeOutbox
from tallygate.wiring.place import Place
from tallygate.wiring.relays import Relays, SecretMissing
from tallygate.wiring.roles import Role
from tallygate.wiring.rotating import Rotation, taking_redis
from tallygate.wiring.worker_line import Order
from tests.access.world import command, put, with_user

OLD, NEW = "redis://ada:old@h", "redis://ada:new@h"
GOOD = "whsec_" + "c2VjcmV0LW9mLTMyLWJ5dGVz" * 2
OTHER = "whsec_" + "b3RoZXItb2YtMzItYnl0ZXMh" * 2


class Taken(list[str]):
    """What was taken over; `fault` is raised instead while it is set."""

    fault: TallygateError | None = None

    async def take(self, secret: str) -> None:
        """Take a secret over."""
        if self.fault is not None:
            raise self.fault
        self.append(secret)


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of a process."""
    return Metrics(CollectorRegistry(), version="1")


def told(metrics: Metrics) -> tuple[float, float]:
    """Return how many secrets were taken over, and how many could not be."""
    read = metrics.registry.get_sample_value
    names = ("tallygate_secret_rotations_total", "tallygate_secret_rejections_total")
    taken, rejected = (read(name, {"secret": "redis_url"}) or 0.0 for name in names)
    return taken, rejected


async def test_a_new_secret_is_taken_over_once(tmp_path: Path, metrics: Metrics) -> None:
    """What is half written, empty or gone changes nothing; what cannot be used is told once."""
    path, taken = put(tmp_path / "url", OLD), Taken()
    rotation = Rotation("redis_url", SecretUrl(OLD, path), taken.take, metrics.access)
    for content in (OLD, "", "redis:/"):
        put(path, content)
        assert await rotation.run_once() == 0
    put(path, NEW)
    taken.fault = BackendUnavailable("not yet")
    assert [await rotation.run_once() for _ in range(3)] == [0, 0, 0]
    assert told(metrics) == (0.0, 1.0)
    taken.fault = None
    assert [await rotation.run_once() for _ in range(3)] == [1, 0, 0]
    assert taken == [NEW]
    path.rename(path.with_suffix(".away"))
    assert [await rotation.run_once() for _ in range(2)] == [0, 0]
    assert told(metrics) == (1.0, 2.0)


async def test_a_wrong_password_leaves_the_right_one(redis_url: str, tmp_path: Path) -> None:
    """Redis is asked before a password counts, and what is connected goes on."""
    async with Redis.from_url(redis_url) as admin:
        await command(admin, "ACL", "SETUSER", "ada", "reset", "on", ">old", "allkeys", "+@all")
        right = with_user(redis_url, "ada", "old")
        credentials = RedisCredentials(right)
        client = connect(right, 5_000, credentials=credentials)
        try:
            await client.set("mine", "1")
            take = taking_redis(credentials, [client])
            with pytest.raises(BackendUnavailable, match="credentials"):
                await take(with_user(redis_url, "ada", "wrong"))
            assert credentials.get_credentials() == ("ada", "old")
            assert await client.get("mine") == b"1"
            before = await client.client_id()
            await command(admin, "ACL", "SETUSER", "ada", ">new")
            await take(with_user(redis_url, "ada", "new"))
            await command(admin, "ACL", "SETUSER", "ada", "<old")
            await client.get("mine")
            assert await client.client_id() != before
        finally:
            await client.aclose()
            await command(admin, "ACL", "DELUSER", "ada")


async def test_an_address_that_does_not_answer_leaves_the_pool(postgres_dsn: str) -> None:
    """What was connected goes on, and a good address replaces it when it comes back."""
    postgres = Postgres(postgres_dsn)
    try:
        async with postgres.connection() as lent:
            first = await lent.fetchval("select pg_backend_pid()")
        with pytest.raises(BackendUnavailable):
            await postgres.renew("postgresql://nobody@127.0.0.1:1/none")
        async with postgres.connection() as lent:
            assert await lent.fetchval("select pg_backend_pid()") == first
            await postgres.renew(postgres_dsn)
            # Whoever has one keeps it.
            assert await lent.fetchval("select pg_backend_pid()") == first
        async with postgres.connection() as lent:
            assert await lent.fetchval("select pg_backend_pid()") != first
    finally:
        await postgres.close()


async def test_webhook_secrets_are_followed(tmp_path: Path, metrics: Metrics) -> None:
    """A secret that changes is signed with; one that is gone or wrong leaves the one before."""
    file = put(tmp_path / "hook", GOOD)
    hook = Destination(
        "hooks", "webhook", "http://127.0.0.1:9/", ("usage.batch",), secret_file=str(file)
    )
    clock = SystemClock()
    relays = Relays(
        Settings(),
        cast(PostgresOutbox, FakeOutbox(clock.now_us)),
        *(RelayMetrics(metrics, clock), clock, LoopMetrics(metrics)),
    )
    try:
        await relays.fit([hook])
        assert signs_with(relays) == [GOOD]
        put(file, OTHER)
        await relays.fit([hook])
        assert signs_with(relays) == [OTHER]
        put(file, "too short")
        with pytest.raises(InvalidField):
            await relays.fit([hook])
        file.rename(tmp_path / "away")
        with pytest.raises(SecretMissing):
            await relays.fit([hook])
        assert signs_with(relays) == [OTHER]
    finally:
        await relays.close()


def signs_with(relays: Relays) -> list[str]:
    """Return the secrets that are signed with now."""
    return [config.secret for config in relays._running]


def test_processes_of_a_group_follow_the_same_file(tmp_path: Path) -> None:
    """Where a secret lies goes with the order of each process, and so does what it was."""
    path = put(tmp_path / "url", OLD)
    settings = load_settings(environ={"TALLYGATE_REDIS_URL_FILE": str(path)})
    order = Order(settings, frozenset({Role.SERVE}), Place(0, 2, True))
    found: Any = Order.decoded(order.encoded()).settings.redis_url
    assert (found.file, found.get_secret_value()) == (path, OLD)


def test_a_stronger_source_has_no_file(tmp_path: Path) -> None:
    """A flag beats the file, which then is not followed."""
    environ = {"TALLYGATE_REDIS_URL_FILE": str(put(tmp_path / "url", OLD))}
    settings = load_settings({"redis_url": NEW}, environ=environ)
    assert settings.redis_url is not None
    assert (settings.redis_url.get_secret_value(), settings.redis_url.file) == (NEW, None)
