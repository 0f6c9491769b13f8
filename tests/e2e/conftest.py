"""Which Redis the installed command is tried against: the one an operator most likely runs.

What `dev` and `demo` start is the bundled one, so that both are met.
"""

import pytest

from tests.conftest import REDIS_BINARIES
from tests.servers import RedisBinary


@pytest.fixture(scope="session")
def redis_binary() -> RedisBinary:
    """The newest redis-server found."""
    return max(REDIS_BINARIES, key=lambda binary: binary.version)
