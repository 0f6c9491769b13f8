"""Every test here runs on every transport that `auto` would take, whatever the suite runs on.

The published front of the native transport is none of these: `test_published_front` says why.
"""

from collections.abc import AsyncIterator

import pytest

from tallygate.api.native import BOUNDED
from tallygate.api.transport import TransportName
from tests.transport.world import World, world

TRANSPORTS = [TransportName.GRPCIO, *([TransportName.NATIVE] if BOUNDED else [])]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    """Each transport in turn."""
    name: TransportName = request.param
    return name


@pytest.fixture
async def it(transport: TransportName) -> AsyncIterator[World]:
    """A server with the usual bounds."""
    async with world(transport) as found:
        yield found
