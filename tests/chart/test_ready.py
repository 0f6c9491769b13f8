"""What `helm test` runs tells who is ready and who is not, of a real ops listener."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions
from tallygate.api.ops_pages import Readiness

from .helm import CHART

PROGRAM = CHART / "files" / "ready.py"
FREE_PORT = "127.0.0.1:0"


@pytest.fixture
def states() -> dict[str, str]:
    """Return the components of the process that is asked."""
    return {"catalog": "ok"}


@pytest.fixture
def port(states: dict[str, str]) -> Iterator[int]:
    """Listen as every role does, on loopback."""
    heartbeat = Heartbeat()
    heartbeat.beat()
    listener = OpsListener(
        OpsOptions(
            address=FREE_PORT,
            registry=CollectorRegistry(),
            readiness=lambda: Readiness(set(states.values()) == {"ok"}, states),
            heartbeat=heartbeat,
            stall_s=600.0,
            services=[],
            refused=lambda: None,
        )
    )
    listener.start()
    yield listener.port
    listener.stop()


def test_a_ready_pod_passes(port: int) -> None:
    """Exit code 0 once each role has answered, and a line that names them."""
    done = run(f"ingest=127.0.0.1:{port}", f"control=127.0.0.1:{port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ready: ingest, control\n"


def test_who_is_not_ready_is_named(port: int, states: dict[str, str]) -> None:
    """Exit code 1 after the time is over, with the role, its pod and the component."""
    states["catalog"] = "none yet"
    done = run(f"control=127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.startswith("control: 127.0.0.1: not ready")
    assert "catalog: none yet" in done.stderr


def test_a_role_without_pods_fails(port: int) -> None:
    """A name that leads nowhere, or a port where nobody is, is no readiness."""
    done = run(f"ingest=127.0.0.1:{port}", "relay=relay.invalid:9464", "control=127.0.0.1:1")
    assert done.returncode == 1
    assert "relay: relay.invalid names no pod" in done.stderr
    assert "control: 127.0.0.1: no answer" in done.stderr
    assert "ingest" not in done.stderr


def run(*targets: str) -> subprocess.CompletedProcess[str]:
    """Run the program for no longer than one round."""
    return subprocess.run(
        [sys.executable, "-I", str(PROGRAM), "--seconds", "0", *targets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
