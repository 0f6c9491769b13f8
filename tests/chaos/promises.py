"""What is promised, how far, and which tests show it: the source of `docs/guarantees.md`.

Owns the mapping from faults to tests. Refuses to know whether they pass.
"""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promises_access import ACCESS
from tests.chaos.promises_chart import CHART
from tests.chaos.promises_clients import CLIENTS
from tests.chaos.promises_envoy import ENVOY
from tests.chaos.promises_identity import IDENTITY
from tests.chaos.promises_money import MONEY
from tests.chaos.promises_operating import OPERATING
from tests.chaos.promises_service import SERVICE
from tests.chaos.promises_usage import USAGE

PROMISES: Final[tuple[Promise, ...]] = (
    USAGE + MONEY + SERVICE + IDENTITY + ACCESS + OPERATING + CHART + CLIENTS + ENVOY
)
