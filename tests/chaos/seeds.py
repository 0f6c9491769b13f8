"""The seed of the fault tests: one number, printed, that a run can be repeated by."""

import os
from typing import Final

VARIABLE: Final = "FAULTS_SEED"
USUAL: Final = 20_261_121
"""Of `make test`, so that it fails for its code and not for its luck; `make test-faults` draws."""


def fault_seed() -> int:
    """Return the seed of this run."""
    return int(os.environ.get(VARIABLE, USUAL))
