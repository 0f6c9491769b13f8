"""The seed of harness P, named at the head of each run."""

import pytest

from tests.chaos.seeds import VARIABLE, fault_seed


def pytest_report_header() -> list[str]:
    """Name the seed."""
    return [f"faults: seed {fault_seed()} ({VARIABLE})"]


@pytest.fixture
def seed() -> int:
    """The seed of this run."""
    return fault_seed()
