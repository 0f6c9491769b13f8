"""One helm for all tests of the chart that run in a process."""

from collections.abc import Iterator

import pytest

from .helm import Helm


@pytest.fixture(scope="session")
def helm() -> Iterator[Helm]:
    """Helm as a library, in a process of its own."""
    with Helm() as running:
        yield running
