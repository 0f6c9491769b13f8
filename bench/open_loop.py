"""Calls at a fixed rate, whatever the server does: latency without coordinated omission.

    app's schedule ──▶ prepared frames ──▶ server ──▶ latency, counted from the schedule

Guarantees: call number n is due n / rate seconds after the start, and its latency counts from
then, also where the server's windows, this process or its socket held it back; what is still
unanswered at the end counts with the time it waited so far; how late this process itself woke up
is reported beside it. Everything sent is prepared before the clock starts.
Refuses to know: what the calls ask.
"""

import argparse
import ctypes
import gc
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from bench.http2 import WINDOW_MAX, Connection, grpc_frame

CONNECTIONS = 4
GRACE_S = 5.0
PR_SET_TIMERSLACK = 29
US = 1e6


@dataclass(frozen=True, slots=True)
class Schedule:
    """So many calls of a method at a rate per second, over some connections.

    `in_flight_max` bounds what waits for an answer on each connection; with a rate beyond reach
    that makes a closed loop of it. Answers may come until `grace_s` after the last call is due.
    """

    port: int
    method: str
    rate: float
    calls: int
    connections: int = CONNECTIONS
    in_flight_max: int = WINDOW_MAX
    grace_s: float = GRACE_S


@dataclass(frozen=True, slots=True)
class Met:
    """What the calls met: latencies in µs in order, those that failed or got no answer among them.

    `late_us` says how late this process woke up for what was due, in order too.
    """

    latencies_us: list[int]
    late_us: list[int]
    failed: int
    unanswered: int
    seconds: float

    def within_us(self, share: float) -> int:
        """Return the latency in µs within which so large a share of the calls ended."""
        return quantile(self.latencies_us, share)


def quantile(ordered: Sequence[int], share: float) -> int:
    """Return the value that so large a share of an ordered list does not exceed; 0 of nothing."""
    if not ordered:
        return 0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def merged(parts: Sequence[Met]) -> Met:
    """Return the calls of several runs as those of one."""
    return Met(
        sorted(each for part in parts for each in part.latencies_us),
        sorted(each for part in parts for each in part.late_us),
        sum(part.failed for part in parts),
        sum(part.unanswered for part in parts),
        sum(part.seconds for part in parts),
    )


def drive(schedule: Schedule, messages: Sequence[bytes]) -> Met:
    """Make the calls, taking `messages` in turn; return what they met. Raises ConnectionEnded."""
    lanes, frames = schedule.connections, [grpc_frame(message) for message in messages]
    connections = []
    try:
        for lane in range(lanes):
            own = islice(cycle(frames), lane, schedule.calls, lanes)
            connections.append(Connection(schedule.port, schedule.method, list(own)))
        gc.collect()
        gc.disable()
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
        return _driven(schedule, connections)
    finally:
        gc.enable()
        for connection in connections:
            connection.close()


def _driven(schedule: Schedule, connections: list[Connection]) -> Met:
    rate, total, lanes = schedule.rate, schedule.calls, schedule.connections
    latencies: list[float] = []
    late: list[float] = []
    clock = time.perf_counter
    due, start = 0, clock()
    give_up = start + total / rate + schedule.grace_s
    while len(latencies) < total:
        now = clock()
        if now > give_up:
            break
        reached = min(total, int((now - start) * rate) + 1)
        if reached > due:
            late.append(now - start - due / rate)
            due = reached
        for lane, connection in enumerate(connections):
            connection.release((due - lane + lanes - 1) // lanes, schedule.in_flight_max)
            connection.flush()
        wait = (start + due / rate if due < total else give_up) - clock()
        blocked = [each for each in connections if each.pending]
        readable, _, _ = select.select(connections, blocked, (), max(0.0, wait))
        for connection in readable:
            lane = connections.index(connection)
            ended = connection.receive()
            now = clock() - start
            latencies += [now - (number * lanes + lane) / rate for number in ended]
    seconds = clock() - start
    unanswered = total - len(latencies)
    # Those sent first are answered first, nearly: what is open are the last ones due.
    latencies += [seconds - number / rate for number in range(total - unanswered, total)]
    return Met(
        sorted(int(each * US) for each in latencies),
        sorted(int(each * US) for each in late),
        sum(each.failed for each in connections),
        unanswered,
        seconds,
    )


def driven_apart(schedule: Schedule, messages: Sequence[bytes], timeout_s: float = 180) -> Met:
    """Make the calls in a process of their own, so that nothing else of ours delays them."""
    with tempfile.NamedTemporaryFile() as frames:
        frames.write(b"".join(map(grpc_frame, messages)))
        frames.flush()
        command = [sys.executable, "-m", "bench.open_loop", frames.name, "--json"]
        for name, value in asdict(schedule).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=True)
    return Met(**json.loads(done.stdout))


def unframed(content: bytes) -> list[bytes]:
    """Return the messages of a file of gRPC frames, one after another."""
    messages, place = [], 0
    while place < len(content):
        after = place + 5 + int.from_bytes(content[place + 1 : place + 5], "big")
        messages.append(content[place + 5 : after])
        place = after
    return messages


def main() -> None:
    """Make the calls that the command line asks for; print what they met."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("frames", help="a file of gRPC frames, one after another")
    asked.add_argument("--port", type=int, required=True)
    asked.add_argument("--method", required=True, help="package.Service/Method")
    asked.add_argument("--rate", type=float, required=True, help="calls a second")
    asked.add_argument("--calls", type=int, required=True)
    asked.add_argument("--connections", type=int, default=CONNECTIONS)
    asked.add_argument("--in-flight-max", type=int, default=WINDOW_MAX)
    asked.add_argument("--grace-s", type=float, default=GRACE_S)
    asked.add_argument("--json", action="store_true", help="everything, for a program")
    options = vars(asked.parse_args())
    messages, as_json = unframed(Path(options.pop("frames")).read_bytes()), options.pop("json")
    met = drive(Schedule(**options), messages)
    if as_json:
        print(json.dumps(asdict(met)))
        return
    for share in (0.5, 0.99, 0.999):
        print(f"p{share * 100:g} {met.within_us(share) / 1e3:.3f} ms")
    woken = quantile(met.late_us, 0.99) / 1e3
    print(f"{met.failed} failed, {met.unanswered} unanswered; p99 of waking up late {woken:.3f} ms")


if __name__ == "__main__":
    main()
