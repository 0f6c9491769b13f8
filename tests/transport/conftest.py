"""Every test here runs on every transport, whatever the rest of the suite runs on."""

from collections.abc import AsyncIterator

import pytest

from tallygate.api.transport import TransportName
from tests.transport.world import World, world


@pytest.fixture(params=[TransportName.GRPCIO, TransportName.NATIVE])
def transport(request: pytest.FixtureRequest) -> TransportName:
    """Each transport in turn."""
    name: TransportName = request.param
    return name


@pytest.fixture
async def it(transport: TransportName) -> AsyncIterator[World]:
    """A server with the usual bounds."""
    async with world(transport) as found:
        yield found
