"""Child processes of a benchmark: started, asked for their address, measured, stopped.

Guarantees: what was started is stopped, whatever fails. Refuses to know: what they serve.
"""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_OPS = re.compile(r"ops on port (\d+)")
STOP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Child:
    """A running server: its process id, the port of its first address, and of ops, 0 for none."""

    pid: int
    port: int
    ops_port: int = 0

    def rss_mb(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
        assert found is not None
        return int(found[1]) / 1024

    def allowed(self) -> float:
        """Return how many decisions the sidecar says it has allowed."""
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            text = reply.read().decode()
        found = re.search(r'^tallygate_decisions_total\{outcome="allowed"\} (\S+)$', text, re.M)
        assert found is not None
        return float(found[1])

    def cpu_s(self) -> float:
        """Return the processor time used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def child(arguments: Sequence[str], environment: dict[str, str]) -> Iterator[Child]:
    """Run `python ARGUMENTS`, which must write its address to stderr, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = _ADDRESS.search(line)
            if found is not None:
                break
        else:
            raise RuntimeError(f"{arguments} ended before it was ready")
        ops = _OPS.search(line)
        yield Child(process.pid, int(found[1]), int(ops[1]) if ops is not None else 0)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
