"""What settings of transport and identity refuse, and which transport can do what they ask."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.prometheus.security import SecurityMetrics
from tallygate.api.transport import ServerOptions, TransportName, TransportUnable
from tallygate.api.transport_choice import chosen
from tallygate.domain.certificate import CertificatesInvalid, ServerCredentials
from tallygate.domain.identity import IdentitiesInvalid
from tallygate.settings import Settings
from tallygate.wiring.securing import examined, secured
from tests.tls.certs import Authority

CERT, KEY, CA, RULES = (Path(f"/certs/{each}") for each in ("a.crt", "a.key", "ca.crt", "r.yaml"))
PAIR = {"tls_cert_file": CERT, "tls_key_file": KEY}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"tls_cert_file": CERT}, "tls_cert_file and tls_key_file need each other"),
        ({"tls_key_file": KEY}, "tls_cert_file and tls_key_file need each other"),
        ({"tls_client_ca_file": CA}, "tls_client_ca_file needs tls_cert_file"),
        ({"tls_ops": "on"}, "tls_ops needs tls_cert_file"),
        ({**PAIR, "tls_identities": RULES}, "tls_identities needs tls_client_ca_file"),
        ({"call_key_file": KEY}, "call_cert_file and call_key_file need each other"),
        ({"call_cert_file": CERT, "call_key_file": KEY}, "call_cert_file needs call_ca_file"),
        ({"socket_mode": "0060"}, "String should match pattern"),
        ({"socket_mode": "660"}, "String should match pattern"),
    ],
)
def test_values_that_leave_something_unproven_are_refused(
    values: dict[str, Any], fault: str
) -> None:
    """Settings that are each right and wrong together are refused by name."""
    with pytest.raises(ValidationError, match=fault):
        Settings(**values)


def test_rules_alone_are_enough_for_sockets() -> None:
    """Where only a Unix socket listens, rules need no certificates."""
    settings = Settings(grpc_address=("unix:/run/a.sock",), tls_identities=RULES)
    assert settings.tls_identities == RULES


def test_mode_that_a_file_has_as_a_number_is_read() -> None:
    """YAML makes a number of 0660; the setting is what was written."""
    assert Settings(socket_mode=0o640).socket_mode == "0640"  # type: ignore[arg-type]


def test_everything_wrong_is_told_before_anything_listens(tmp_path: Path) -> None:
    """Bad files end the start with every fault; `check-config` shows the same with its lines."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nidentities:\n  - id: unix\n")
    cert, key = Authority().server().write(tmp_path, "server")
    key.unlink()
    settings = Settings(
        tls_cert_file=cert, tls_key_file=key, tls_client_ca_file=cert, tls_identities=rules
    )
    faults, _ = examined(settings)
    assert [(each.line, each.path) for each in faults] == [
        (0, str(key)),
        (3, f"{rules}: identities[0].tenants"),
    ]
    told = SecurityMetrics(CollectorRegistry())
    with pytest.raises(CertificatesInvalid, match="No such file"):
        secured(settings, SystemClock(), told)
    alone = Settings(grpc_address=(f"unix:{tmp_path}/a.sock",), tls_identities=rules)
    with pytest.raises(IdentitiesInvalid, match="line 3: identities"):
        secured(alone, SystemClock(), told)


def test_native_gives_way_to_what_can() -> None:
    """TLS and rules are grpcio's: `auto` takes it, and `native` by name is refused."""
    asked: dict[str, Any] = {"addresses": ["127.0.0.1:0"], "message_bytes_max": 1, "edge": None}
    for more in (
        {"tls": lambda: ServerCredentials(b"", b"")},
        {"knows_callers": True},
    ):
        auto = ServerOptions(**asked, **more, transport=TransportName.AUTO)
        assert chosen(auto)[0] is TransportName.GRPCIO
        with pytest.raises(TransportUnable, match="native transport cannot be used"):
            chosen(ServerOptions(**asked, **more, transport=TransportName.NATIVE))
