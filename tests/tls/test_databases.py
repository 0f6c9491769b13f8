"""Redis and Postgres over TLS: both sides prove themselves, and renewals are taken over."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.embedded.redis import bundled_binary
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.prometheus.security import SecurityMetrics
from tallygate.adapters.redis.client import connect, translate
from tallygate.domain.errors import BackendUnavailable
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl
from tallygate.wiring.securing import others_files, secured
from tests.servers import RedisBinary, redis_binaries
from tests.tls.certs import Authority
from tests.tls.front import Front, fronted
from tests.tls.world import replace

TIMEOUT_MS = 10_000
# The bundled one is built without.
ABLE = [each for each in redis_binaries() if each.path != bundled_binary()]


@dataclass
class Ground:
    """An authority, a server's files that it has signed, and our own."""

    folder: Path
    authority: Authority
    front: Front

    @property
    def ca(self) -> Path:
        """The authority's file."""
        return self.folder / "ca.crt"

    @property
    def ours(self) -> tuple[Path, Path]:
        """Our certificate and key."""
        return self.folder / "ours.crt", self.folder / "ours.key"

    def redis_url(self, ca: Path | None = None, host: str = "localhost", kind: str = "") -> str:
        """Return how settings name the Redis behind the front."""
        cert, key = self.ours
        files = f"ssl_ca_certs={ca or self.ca}&ssl_certfile={cert}&ssl_keyfile={key}"
        return f"rediss{kind}://{host}:{self.front.port}?{files}"

    def dsn(self, ca: Path | None = None, host: str = "localhost") -> str:
        """Return how settings name the Postgres behind the front."""
        cert, key = self.ours
        files = f"sslrootcert={ca or self.ca}&sslcert={cert}&sslkey={key}"
        at = f"{host}:{self.front.port}"
        return f"postgresql://postgres@{at}/postgres?sslmode=verify-full&{files}"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Certificates of one authority for both sides."""
    authority = Authority()
    # It is `localhost`, and not the address that this has.
    cert, key = authority.server(address="192.0.2.1").write(tmp_path, "server")
    ca = authority.write(tmp_path)
    authority.client("spiffe://example.org/tallygate").write(tmp_path, "ours")
    return Ground(tmp_path, authority, Front(cert, key, ca))


@pytest.fixture
async def redis(ground: Ground, tmp_path: Path) -> AsyncIterator[Ground]:
    """A Redis behind TLS."""
    async with (
        EmbeddedRedis(tmp_path / "redis") as server,
        fronted(ground.front, server.url.removeprefix("unix://")),
    ):
        yield ground


@pytest.fixture
async def postgres(ground: Ground, postgres_server: EmbeddedPostgres) -> AsyncIterator[Ground]:
    """A Postgres behind TLS."""
    async with fronted(ground.front, _socket_of(postgres_server), postgres=True):
        yield ground


def _socket_of(server: EmbeddedPostgres) -> str:
    [folder] = parse_qs(urlsplit(server.dsn).query)["host"]
    return f"{folder}/.s.PGSQL.5432"


async def test_redis_over_tls(redis: Ground, tmp_path: Path) -> None:
    """Redis is asked over TLS; another authority, and another name, are not believed."""
    stranger = Authority("stranger").write(tmp_path, "stranger")
    client = connect(redis.redis_url(), TIMEOUT_MS)
    assert await client.ping()
    await client.aclose()
    for url in (redis.redis_url(stranger), redis.redis_url(host="127.0.0.1")):
        client = connect(url, TIMEOUT_MS)
        with pytest.raises((RedisError, OSError)) as told:
            await client.ping()
        assert isinstance(told.value, RedisError | OSError)
        assert isinstance(translate(told.value), BackendUnavailable)
        await client.aclose()


@pytest.mark.parametrize("binary", ABLE, ids=lambda each: each.label)
async def test_redis_that_speaks_tls_itself(ground: Ground, binary: RedisBinary) -> None:
    """A Redis with TLS of its own lets us in by our certificate, and nobody without."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ground.front.port = free.getsockname()[1]
    options = (
        *("--tls-port", str(ground.front.port), "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(ground.front.cert), "--tls-key-file", str(ground.front.key)),
        *("--tls-ca-cert-file", str(ground.ca)),
    )
    async with EmbeddedRedis(ground.folder / "own", binary=binary.path, options=options):
        client = connect(ground.redis_url(), TIMEOUT_MS)
        assert await client.ping()
        await client.aclose()
        bare = connect(ground.redis_url().partition("&")[0], TIMEOUT_MS)
        with pytest.raises((RedisError, OSError)):
            await bare.ping()
        await bare.aclose()


async def test_redis_sees_our_renewed_certificate(redis: Ground) -> None:
    """Who connects again shows the certificate that is in the file by then."""
    client = connect(redis.redis_url(), TIMEOUT_MS, connections_max=1)
    assert await client.ping()
    renewed = redis.authority.client("spiffe://example.org/renewed", name="renewed")
    for path, content in zip(redis.ours, (renewed.pem, renewed.key_pem), strict=True):
        replace(path, content)
    await client.connection_pool.disconnect()
    assert await client.ping()
    assert redis.front.names == ["client", "renewed"]
    await client.aclose()


def test_servers_of_a_cluster_share_their_files(ground: Ground) -> None:
    """What follows the last of several servers holds for each of them."""
    url = ground.redis_url(kind="+cluster").replace("localhost", "one:1,localhost")
    client = connect(url, TIMEOUT_MS)
    assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == str(ground.ca)
    assert client.connection_pool.connection_kwargs["host"] == "one"


async def test_postgres_over_tls(postgres: Ground, tmp_path: Path) -> None:
    """Postgres is asked over TLS; another authority, and another name, are not believed."""
    stranger = Authority("stranger").write(tmp_path, "stranger")
    for dsn, good in (
        (postgres.dsn(), True),
        (postgres.dsn(stranger), False),
        (postgres.dsn(host="127.0.0.1"), False),
    ):
        pool = Postgres(dsn, PoolOptions(connections_max=1))
        if good:
            async with pool.connection() as lent:
                assert await lent.fetchval("select 1") == 1
        else:
            with pytest.raises(BackendUnavailable):
                async with pool.connection():
                    raise AssertionError("it was believed")
        await pool.close()


async def test_postgres_sees_our_renewed_certificate(postgres: Ground) -> None:
    """A new connection shows the certificate that is in the file by then."""
    pool = Postgres(postgres.dsn(), PoolOptions(connections_max=1))
    async with pool.connection() as lent:
        await lent.fetchval("select 1")
    renewed = postgres.authority.client("spiffe://example.org/renewed", name="renewed")
    for path, content in zip(postgres.ours, (renewed.pem, renewed.key_pem), strict=True):
        replace(path, content)
    async with pool.connection() as lent:
        await lent.execute("select 1")
        await lent.close()
    async with pool.connection() as lent:
        assert await lent.fetchval("select 1") == 1
    assert postgres.front.names == ["client", "renewed"]
    await pool.close()


async def test_their_files_are_watched(ground: Ground) -> None:
    """The end of each file that an address names is shown; one that goes bad is counted."""
    settings = Settings(
        redis_url=SecretUrl(ground.redis_url()), postgres_dsn=SecretUrl(ground.dsn())
    )
    cert, _ = ground.ours
    assert sorted(others_files(settings)) == sorted([ground.ca, cert, ground.ca, cert])
    registry = CollectorRegistry()
    found = secured(settings, SystemClock(), SecurityMetrics(registry))

    def shown(name: str) -> float | None:
        return registry.get_sample_value(f"tallygate_certificate_{name}", {"file": str(ground.ca)})

    await found.look()
    authority = x509.load_pem_x509_certificate(ground.authority.pem)
    ends = authority.not_valid_after_utc.timestamp()
    assert shown("expiry_timestamp_seconds") == ends
    replace(ground.ca, b"nothing")
    await found.look()
    assert shown("errors_total") == 1
    assert shown("expiry_timestamp_seconds") == ends
