"""Which transport the tests' servers run on: `TEST_TRANSPORT`, or grpcio.

Guarantees: every server that a test starts asks here, unless its transport is what is tested.
Refuses to know servers.
"""

import os
from typing import Final

from tallygate.api.transport import TransportName

TRANSPORT: Final = TransportName(os.environ.get("TEST_TRANSPORT", "grpcio"))
