"""`python -m tallygate.probe unix:/path /livez`: asks an ops listener where a kubelet cannot.

Guarantees: exit code 0 for status 200, else 1, within two seconds; it imports the standard library
alone, as a probe that costs half a second of a processor would be felt.
Refuses to know what the answer means.
"""

import socket
import sys
from typing import Final

TIMEOUT_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 64 * 1024
UNIX: Final = "unix:"


def probe(address: str, path: str) -> str:
    """Return the answer's first line, "" where there is none. Raises OSError."""
    with _connected(address) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n".encode())
        answer = b""
        while b"\r\n" not in answer and len(answer) < ANSWER_BYTES_MAX:
            part = connection.recv(ANSWER_BYTES_MAX)
            if not part:
                break
            answer += part
    return answer.partition(b"\r\n")[0].decode("latin-1")


def main(arguments: list[str]) -> int:
    """Run the probe; return its exit code, and say on stderr what went wrong."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m tallygate.probe ADDRESS PATH\n")
        return 2
    try:
        line = probe(*arguments)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        return 1
    if line.split()[1:2] != ["200"]:
        sys.stderr.write(f"{arguments[0]}{arguments[1]}: {line or 'no answer'}\n")
        return 1
    return 0


def _connected(address: str) -> socket.socket:
    if address.startswith(UNIX):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(address.removeprefix(UNIX))
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
