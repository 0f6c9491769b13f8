"""The address for Envoy is kept and guarded as that for apps is."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tallygate.api.socket_lock import AddressInUse
from tallygate.settings import Settings
from tallygate.wiring import grouped
from tallygate.wiring.envoy import SERVICES
from tallygate.wiring.roles import Role

ADDRESS = "127.0.0.1:0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processes": 2, "envoy_address": ("unix:/run/envoy.sock",)}, "need TCP"),
        (
            {
                "tls_identities": Path("rules.yaml"),
                "grpc_address": ("unix:/run/tallygate.sock",),
                "envoy_address": (ADDRESS,),
            },
            "needs tls_client_ca_file",
        ),
        ({"envoy_address": ("nowhere",)}, "host:port"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    """What would leave Envoy without an answer, or unproven, is refused at the start."""
    with pytest.raises(ValidationError, match=message):
        Settings(**settings)


async def test_processes_share_it() -> None:
    """Several processes have one address for Envoy, which no other group gets."""
    settings = Settings(processes=2, envoy_address=(ADDRESS,))
    async with AsyncExitStack() as stack:
        ports, (address,) = grouped._claimed(settings, settings.envoy_address, stack)
        assert ports
        assert address != ADDRESS
        with pytest.raises(AddressInUse):
            grouped._claimed(settings, (address,), stack)
    assert grouped._services(settings, frozenset({Role.SERVE}))[2:] == [*SERVICES]
