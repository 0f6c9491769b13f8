"""What the tests of the client share: a scripted sidecar, and both kinds of client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fake_sidecar import FakeSidecar, fake_sidecar

from conformance_words import now
from tallygate_client import AsyncClient, Client

Make = Callable[..., Any]


@pytest.fixture
def fake() -> Iterator[FakeSidecar]:
    """A sidecar that answers as the test says."""
    with fake_sidecar() as running:
        yield running


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "asyncio"])
async def make(request: pytest.FixtureRequest, fake: FakeSidecar) -> AsyncIterator[Make]:
    """Make clients of either kind; all are closed in the end."""
    made = []

    def make_one(target: str | None = None, **options: Any) -> Any:
        # Long, as what is measured here is not how fast a busy machine is.
        client = request.param(target or fake.address, **{"timeout": 20.0} | options)
        made.append(client)
        return client

    yield make_one
    for each in made:
        await now(each.close(timeout=0.0))
