"""The Python client does what every client does: all cases, behind faults, on a real sidecar.

`make test-clients` plays the same cases with the clients of the other languages.
"""

import re
from collections.abc import Iterator

import pytest

from clients.conformance.cases import FILE, read
from clients.conformance.drivers import LANGUAGES
from clients.conformance.play import Outcome, play_all
from clients.conformance.world import world
from tallygate.adapters.embedded import EmbeddedRedis
from tests.servers import Databases, flush, run

# All cases are played before the first test, and most of them wait for a fault to be over.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CASES = read()
LANES = 4


@pytest.fixture(scope="module")
def outcomes(
    redis_server: EmbeddedRedis, databases: Databases, migrated_template: str
) -> Iterator[dict[str, Outcome]]:
    """What became of each case, played several at once by as many drivers."""
    run(flush(redis_server.url))
    name = run(databases.create(migrated_template))

    async def play() -> list[Outcome]:
        async with world(redis_server.url, databases.dsn(name)) as made:
            return await play_all(made, [LANGUAGES["python"]], CASES, LANES)

    yield {each.case: each for each in run(play())}
    run(databases.drop(name))


@pytest.mark.parametrize("name", [each.name for each in CASES])
def test_a_client_does_as_every_client(name: str, outcomes: dict[str, Outcome]) -> None:
    """The case comes out as it says."""
    assert outcomes[name].fault == ""


def test_cases_are_of_every_kind() -> None:
    """No part of what clients promise is without cases, and each case says what is promised."""
    parts = re.findall(r"^# --- (.+?) -+$", FILE.read_text(), re.MULTILINE)
    assert {"Retries", "Replays", "Deadlines", "Buffering", "The spool", "Reservations"} <= set(
        parts
    )
    assert len(CASES) >= 70
    assert all(each.says.endswith(".") and each.steps for each in CASES)
