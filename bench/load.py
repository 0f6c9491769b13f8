"""Load by h2load with a prepared gRPC frame, and what it reports.

Guarantees: figures are h2load's own; a run in which a call failed in transport is refused.
Refuses to know: what the frame asks.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
TIMEOUT_S = 120
# The frame of an empty message: what an answer has at least.
FRAME_BYTES_MIN = 5


@dataclass(frozen=True, slots=True)
class Result:
    """Calls per second, and the mean time of one call in ms.

    Not `answered`: so many ended with a status alone that an answer's five bytes each are missing.
    """

    calls: int
    per_second: float
    mean_ms: float
    answered: bool = True


def available() -> bool:
    """Say whether h2load is installed."""
    return shutil.which("h2load") is not None


def flood(
    port: int, method: str, message: bytes, *, seconds: int, clients: int, streams: int
) -> float:
    """Send `message` as fast as it goes for so long; return the answers per second, of any status.

    Unlike `run` it minds no failure: a server that is flooded may refuse and reset.
    """
    with tempfile.NamedTemporaryFile() as frame:
        frame.write(b"\0" + len(message).to_bytes(4, "big") + message)
        frame.flush()
        command = [
            *("h2load", "-D", str(seconds), "-c", str(clients), "-m", str(streams)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers", "-d", frame.name),
            f"http://127.0.0.1:{port}/{method}",
        ]
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    speed = re.search(r"finished in .*?, ([\d.]+) req/s", finished.stdout)
    if speed is None:
        raise RuntimeError(f"h2load did not end well:\n{finished.stdout}")
    return float(speed[1])


def run(
    port: int, method: str, message: bytes, *, calls: int, clients: int, streams: int
) -> Result:
    """Send `message` so many times over `clients` connections with `streams` calls at once each."""
    with tempfile.NamedTemporaryFile() as frame:
        frame.write(b"\0" + len(message).to_bytes(4, "big") + message)
        frame.flush()
        command = [
            *("h2load", "-n", str(calls), "-c", str(clients), "-m", str(streams)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers", "-d", frame.name),
            f"http://127.0.0.1:{port}/{method}",
        ]
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    output = finished.stdout
    speed = re.search(r"finished in .*?, ([\d.]+) req/s", output)
    mean = re.search(r"time for request: +\S+ +\S+ +([\d.]+)(us|ms|s)", output)
    failed = re.search(r"(\d+) failed, (\d+) errored", output)
    if speed is None or mean is None or failed is None or failed.groups() != ("0", "0"):
        raise RuntimeError(f"h2load did not end well:\n{output}")
    received = re.search(r"\((\d+)\) data", output)
    answered = received is not None and int(received[1]) >= calls * FRAME_BYTES_MIN
    return Result(calls, float(speed[1]), float(mean[1]) * UNITS[mean[2]], answered)
