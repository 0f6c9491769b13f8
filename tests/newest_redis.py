"""Fixtures for tests that one Redis is enough for: the one an operator most likely runs.

Owns which it is. What depends on a Redis's version is tested on each, with the fixtures of
`tests/conftest.py`.
"""

from collections.abc import Iterator

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tests.conftest import REDIS_BINARIES
from tests.servers import RedisBinary, shared_redis


@pytest.fixture(scope="session")
def redis_binary() -> RedisBinary:
    """The newest redis-server found."""
    return max(REDIS_BINARIES, key=lambda binary: binary.version)


@pytest.fixture(scope="session")
def redis_server(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """A server of these tests alone: the others' would outlive its binary, which is chosen here."""
    yield from shared_redis(redis_binary, tmp_path_factory.mktemp("redis"))
