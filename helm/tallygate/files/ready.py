"""Asks every pod of every role whether it is ready: the program of `helm test`.

`ready.py [--seconds N] ROLE=SERVICE:PORT …`, where the service names a role's pods.

Guarantees: exit code 0 only once each pod that the service names has answered 200 on `/readyz`, and
each role has one; whatever is amiss after N seconds is told, role by role.
Refuses to know: Tallygate; the standard library is enough for it.
"""

import argparse
import http.client
import socket
import sys
import time

ROUND_S = 1.0
ANSWER_S = 3.0
DETAIL_MAX_BYTES = 500


def main() -> int:
    """Ask until all are ready or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("targets", nargs="+", metavar="ROLE=SERVICE:PORT")
    given = parser.parse_args()
    ends = time.monotonic() + given.seconds
    while True:
        faults = [fault for target in given.targets for fault in amiss(target)]
        if not faults:
            print(f"ready: {', '.join(target.partition('=')[0] for target in given.targets)}")
            return 0
        if time.monotonic() >= ends:
            print("\n".join(faults), file=sys.stderr)
            return 1
        time.sleep(min(ROUND_S, max(0.0, ends - time.monotonic())))


def amiss(target: str) -> list[str]:
    """Return what keeps a role's pods from being ready, a line for each pod."""
    role, _, place = target.partition("=")
    host, _, port = place.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        return [f"{role}: {host} names no pod: {error}"]
    faults = []
    for address in sorted({str(each[4][0]) for each in found}):
        fault = answer(address, int(port))
        if fault:
            faults.append(f"{role}: {address}: {fault}")
    return faults


def answer(address: str, port: int) -> str:
    """Return what is wrong with one pod; nothing when it is ready."""
    connection = http.client.HTTPConnection(address, port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/readyz?verbose")
        reply = connection.getresponse()
        text = reply.read(DETAIL_MAX_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return "" if reply.status == http.client.OK else " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
