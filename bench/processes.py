"""Child processes of a benchmark: started, asked for their address, measured, stopped.

Guarantees: what was started is stopped, whatever fails. Refuses to know: what they serve.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_OPS = re.compile(r"ops on port (\d+)")
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
POLL_S = 0.02
PASSED_ON_MAX = 50
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the processor time a process has used so far, in seconds, user's and system's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def family_s(root: int) -> float:
    """Return the processor time of a process, its children and what of them has ended."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended between the two
        own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
        if int(folder.name) == root:
            ticks += own + ended
        elif int(fields[1]) == root:
            ticks += own
    return ticks / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Return a process's resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
    assert found is not None
    return int(found[1]) / 1024


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Child:
    """A running server: its process id, the port of its first address, and of ops, 0 for none."""

    pid: int
    port: int
    ops_port: int = 0

    def rss_mb(self) -> float:
        """Return the resident memory in MB."""
        return rss_mb(self.pid)

    def counter(self, series: str) -> float:
        """Return a series of the sidecar's metrics, such as `name{label="value"}`; 0 for none."""
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            text = reply.read().decode()
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
        return float(found[1]) if found is not None else 0.0

    def allowed(self) -> float:
        """Return how many decisions the sidecar says it has allowed."""
        return self.counter('tallygate_decisions_total{outcome="allowed"}')

    def cpu_s(self) -> float:
        """Return the processor time used so far, its processes' too, in seconds."""
        return family_s(self.pid)


@contextmanager
def child(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Child]:
    """Run `python ARGUMENTS`, which must write its address to stderr, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    with _stopped(process):
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            found = _ADDRESS.search(line)
            if found is not None:
                break
        else:
            raise RuntimeError(f"{arguments} ended before it was ready:\n{''.join(told)}")
        ops = _OPS.search(line)
        # Nobody reads a pipe that is full: what the child says later is said here.
        threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
        yield Child(process.pid, int(found[1]), int(ops[1]) if ops is not None else 0)


def _pass_on(lines: Iterable[str]) -> None:
    for line in islice(lines, PASSED_ON_MAX):
        sys.stderr.write(f"  {line}")
    for _ in lines:
        pass


@contextmanager
def program(
    arguments: Sequence[str], environment: Mapping[str, str], *, port: int, log: Path
) -> Iterator[Child]:
    """Run a program that listens on `port`, which it was told, while the block runs."""
    with log.open("wb") as told:
        process = subprocess.Popen(
            arguments, env=environment, stdout=told, stderr=subprocess.STDOUT, cwd=log.parent
        )
        with _stopped(process):
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{arguments[0]} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(POLL_S)
            yield Child(process.pid, port)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _stopped(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
