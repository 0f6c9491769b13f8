"""Fixtures for every test: real servers, one of each per worker, and hypothesis profiles.

`redis_url` and `own_redis` are the newest Redis found, or each in turn; `postgres_dsn` is a
migrated database of the test's own. All are synchronous, for any kind of test to ask for them.
"""

import gc
import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.servers import (
    UNSYNCED,
    Databases,
    RedisBinary,
    flush,
    quick_folder,
    redis_binaries,
    run,
    shared_redis,
)

REDIS_BINARIES = redis_binaries()
NEWEST_REDIS = max(REDIS_BINARIES, key=lambda binary: binary.version)
# What a version of Redis may change is in the script and the adapter: the tests of these, and those
# marked, run on each Redis; all others on the newest, unless TEST_REDIS is "every".
ON_EVERY_REDIS = frozenset({"catalog", "contracts", "embedded", "ops", "property"})
STRIPE_MOCK = shutil.which("stripe-mock")

SLOW_MACHINES = [HealthCheck.too_slow]
settings.register_profile(
    "dev", max_examples=50, deadline=None, suppress_health_check=SLOW_MACHINES
)
settings.register_profile(
    "build",
    max_examples=50,
    deadline=None,
    # A build that fails has to fail again; new examples are for those who look into it.
    derandomize=True,
    print_blob=True,
    suppress_health_check=SLOW_MACHINES,
)
settings.register_profile(
    "ci",
    max_examples=200,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=SLOW_MACHINES,
)
settings.register_profile(
    "nightly",
    max_examples=5_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=SLOW_MACHINES,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# What takes long begins first: a worker that begins it last leaves the others without work.
LONG = frozenset({"chaos", "e2e", "guard", "month", "property", "sim"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders whose tests take long before the others."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what was imported and collected, all run long."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    """Name the servers that this run is against."""
    return [
        "redis: " + ", ".join(f"{each.label} ({each.path})" for each in REDIS_BINARIES),
        "postgres: 18, embedded",
        "stripe: fake" + (f", stripe-mock ({STRIPE_MOCK})" if STRIPE_MOCK else ""),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that wants a Redis on each that it is about."""
    if "redis_binary" not in metafunc.fixturenames:
        return
    every = (
        os.environ.get("TEST_REDIS") == "every"
        or metafunc.definition.path.parent.name in ON_EVERY_REDIS
        or metafunc.definition.get_closest_marker("every_redis") is not None
    )
    found = REDIS_BINARIES if every else [NEWEST_REDIS]
    labels = [each.label for each in found]
    metafunc.parametrize("redis_binary", found, ids=labels, scope="session", indirect=True)


@pytest.fixture(scope="session")
def redis_binary(request: pytest.FixtureRequest) -> RedisBinary:
    """The newest redis-server found, or each in turn: see `pytest_generate_tests`."""
    binary: RedisBinary = request.param
    return binary


@pytest.fixture(scope="session")
def redis_server(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """The worker's shared Redis; ask for `redis_url` instead, which empties it."""
    yield from shared_redis(redis_binary, tmp_path_factory.mktemp("redis"))


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The address of an empty Redis without scripts; no other test uses it meanwhile."""
    run(flush(redis_server.url))
    return redis_server.url


@pytest.fixture
def own_redis(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """A Redis for this test alone, to configure, kill and restart."""
    folder = tmp_path_factory.mktemp("redis")
    server = EmbeddedRedis(folder, binary=redis_binary.path, options=UNSYNCED)
    run(server.start())
    yield server
    run(server.stop())


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The worker's shared Postgres; ask for `postgres_dsn` instead."""
    with quick_folder(tmp_path_factory.mktemp("postgres")) as folder:
        server = EmbeddedPostgres(folder, unsafe_fast=True)
        run(server.start())
        yield server
        run(server.stop())


@pytest.fixture(scope="session")
def databases(postgres_server: EmbeddedPostgres) -> Databases:
    """Makes databases on the worker's Postgres."""
    return Databases(postgres_server)


@pytest.fixture(scope="session")
def migrated_template(databases: Databases) -> str:
    """The name of a database with today's schema, to copy."""
    # Here and not above, so that tests of the embedded servers need no schema.
    from tallygate.adapters.postgres.migrate import migrate  # noqa: PLC0415

    name = run(databases.create())
    run(migrate(databases.dsn(name)))
    return name


@pytest.fixture
def postgres_dsn(databases: Databases, migrated_template: str) -> Iterator[str]:
    """The address of a migrated database for this test alone."""
    name = run(databases.create(migrated_template))
    yield databases.dsn(name)
    run(databases.drop(name))


@pytest.fixture(scope="module")
def read_postgres_dsn(databases: Databases, migrated_template: str) -> Iterator[str]:
    """The address of a migrated database for the tests of a module, none of which changes it."""
    name = run(databases.create(migrated_template))
    yield databases.dsn(name)
    run(databases.drop(name))


@pytest.fixture
def empty_postgres_dsn(databases: Databases) -> Iterator[str]:
    """The address of a database without any schema, for this test alone."""
    name = run(databases.create())
    yield databases.dsn(name)
    run(databases.drop(name))


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres for this test alone, to kill and restart; not migrated."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), unsafe_fast=True)
    run(server.start())
    yield server
    run(server.stop())
