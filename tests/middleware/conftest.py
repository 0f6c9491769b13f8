"""The sidecar that a module's tests share; its tenants are each test's own."""

from collections.abc import Iterator

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tests.middleware.world import World, a_tenant, world
from tests.servers import flush, run


@pytest.fixture(scope="module")
def metered_world(redis_server: EmbeddedRedis) -> Iterator[World]:
    """A sidecar, and who asks it where tenants stand."""
    run(flush(redis_server.url))
    with world(redis_server.url) as running:
        yield running


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test knows."""
    return a_tenant()
