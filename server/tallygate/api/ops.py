"""The ops listener: liveness, readiness, metrics, gRPC health and reflection on one address.

Guarantees: it runs in threads of its own, so that a busy or stalled event loop neither delays a
probe nor hides; connections are bounded, and calls over gRPC cannot use up the room for probes.
Refuses to know: what makes the process ready, and what the metrics mean.

The first bytes of a connection tell which protocol it speaks. HTTP/1.1 is answered here; HTTP/2 is
passed through to a gRPC server on a private Unix socket, as grpcio cannot share its port.
"""

import contextlib
import os
import selectors
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from tallygate.api.ops_grpc import OpsGrpc
from tallygate.api.ops_pages import Pages, Readiness
from tallygate.api.ops_tls import OpsTls, end, relay
from tallygate.api.socket_lock import AddressInUse, SocketLock, path_of
from tallygate.api.socket_owner import OWN, SocketOwner
from tallygate.domain.certificate import CurrentCredentials

CONNECTIONS_MAX: Final = 64
"""Probes, scrapers and a few people; each costs a thread, and HTTP ones end after one answer."""

GRPC_CONNECTIONS_MAX: Final = 32
"""Watchers stay for hours: half of the room is kept for probes."""

HTTP_TIMEOUT_S: Final = 5.0
"""For a whole request to arrive, and for its answer to leave: probes give up after 1 s."""

HEAD_BYTES_MAX: Final = 8 * 1024
COPY_BYTES: Final = 64 * 1024
STOP_TIMEOUT_S: Final = 5.0
ACCEPT_PAUSE_S: Final = 0.1
PREFACE: Final = b"PRI "
"""How each HTTP/2 connection begins, and no HTTP/1.1 request does."""

log = structlog.get_logger(__name__)


class Heartbeat:
    """When the main loop last ran. The loop calls `beat`; any thread may ask for the age."""

    def __init__(self) -> None:
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Note that the loop runs."""
        self._beaten = time.monotonic()

    def age_s(self) -> float:
        """Return the seconds since the last beat."""
        return time.monotonic() - self._beaten


def _ignore() -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True)
class OpsOptions:
    """Where the listener is, what it tells of, and when a silent loop counts as stalled.

    `readiness` is asked from another thread for each `/readyz`, and must answer at once.
    """

    address: str
    registry: CollectorRegistry
    readiness: Callable[[], Readiness]
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    stall_s: float = 10.0
    services: Sequence[str] = ()
    refused: Callable[[], None] = _ignore
    owner: SocketOwner = OWN
    # What a TCP address proves itself with; None where it speaks no TLS.
    tls: CurrentCredentials | None = None


class OpsListener:
    """Listens from `start` to `stop`. Neither blocks for longer than some seconds."""

    def __init__(self, options: OpsOptions) -> None:
        self._options = options
        self._pages = Pages(options.registry, options.readiness, self._stalled)
        self._grpc = OpsGrpc(options.services, self._stalled)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}  # whether it speaks gRPC
        self._stopping = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._acceptor: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._socket_lock: SocketLock | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._private = contextlib.ExitStack()
        self._grpc_path = ""
        self._tls: OpsTls | None = None

    @property
    def port(self) -> int:
        """The bound TCP port; 0 on a Unix socket and before `start`."""
        if self._listener is None or self._listener.family == socket.AF_UNIX:
            return 0
        return int(self._listener.getsockname()[1])

    def set_serving(self, service: str, serving: bool) -> None:
        """Set what gRPC health says of a service; "" is the process as a whole."""
        self._grpc.set_serving(service, serving)

    def start(self) -> None:
        """Listen and serve. Raises `AddressInUse` naming the address."""
        path = path_of(self._options.address)
        if path is not None:
            self._socket_lock = SocketLock(path, self._options.owner)
            self._socket_lock.take()
        self._listener = listen(self._options.address, self._options.owner)
        # Short by design: a socket's path holds about a hundred bytes.
        folder = self._private.enter_context(
            tempfile.TemporaryDirectory(prefix="tallygate-ops-", dir=short_folder())
        )
        self._grpc_path = f"{folder}/grpc.sock"
        if self._options.tls is not None and path is None:
            self._tls = OpsTls(self._options.tls, folder)
        self._grpc.start(f"unix:{self._grpc_path}")
        self._wake = socket.socketpair()
        self._acceptor = self._spawn(self._accept_all, self._listener, self._wake[0])

    def stop(self) -> None:
        """Turn health, cut every connection and give the address back; harmless when repeated."""
        if self._listener is None or self._wake is None:
            return
        self._stopping.set()
        self._wake[1].send(b"x")
        self._grpc.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        if self._acceptor is not None:
            # First, as it starts the others: from then on their number only falls.
            self._acceptor.join(STOP_TIMEOUT_S)
        with self._lock:
            for connection in self._open:
                _shut(connection, socket.SHUT_RDWR)
            threads = [*self._threads]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for each in (self._listener, *self._wake):
            each.close()
        if self._options.address.startswith("unix:"):
            Path(self._options.address.removeprefix("unix:")).unlink(missing_ok=True)
        if self._socket_lock is not None:
            self._socket_lock.give_back()
        self._listener = self._wake = None
        self._private.close()

    def _stalled(self) -> float | None:
        """Return the age of the last heartbeat when that is too long ago."""
        age_s = self._options.heartbeat.age_s()
        return age_s if age_s > self._options.stall_s else None

    def _accept_all(self, listener: socket.socket, wake: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    # Out of descriptors, most likely: a spinning loop would make it worse.
                    log.warning("ops_accept_failed", cause=repr(error))
                    self._stopping.wait(ACCEPT_PAUSE_S)
                    continue
                try:
                    self._admit(self._tls.wrapped(connection) if self._tls else connection)
                except OSError:
                    connection.close()  # it went away before it was greeted

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            room = len(self._open) < CONNECTIONS_MAX and not self._stopping.is_set()
            if room:
                self._open[connection] = False
        if not room:
            connection.close()
            self._options.refused()
            return
        self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(HTTP_TIMEOUT_S)
            deadline = time.monotonic() + HTTP_TIMEOUT_S
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            received = _receive_until(connection, b"", deadline, lambda got: len(got) >= 4)
            if received.startswith(PREFACE):
                self._pass_through(connection, received)
            elif received:
                head = _receive_until(
                    connection, received, deadline, lambda got: b"\r\n\r\n" in got
                )
                connection.settimeout(HTTP_TIMEOUT_S)
                connection.sendall(self._pages.answer(head))
        except OSError:
            pass  # it went away, was too slow, or we are stopping
        finally:
            with self._lock:
                self._open.pop(connection, None)
            if isinstance(connection, ssl.SSLSocket):
                end(connection)
            _shut(connection, socket.SHUT_WR)
            connection.close()

    def _pass_through(self, connection: socket.socket, received: bytes) -> None:
        with self._lock:
            room = sum(self._open.values()) < GRPC_CONNECTIONS_MAX
            self._open[connection] = room
        if not room:
            self._options.refused()
            return
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(HTTP_TIMEOUT_S)
            server.connect(self._grpc_path)
            server.sendall(received)
            # From here on each side may be silent for as long as a Watch lasts; a peer that is
            # gone without a word is found by keepalive.
            for each in (connection, server):
                each.settimeout(None)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if isinstance(connection, ssl.SSLSocket):
                relay(connection, server, HTTP_TIMEOUT_S)
                return
            back = self._spawn(_copy, server, connection)
            _copy(connection, server)
            back.join()

    def _spawn(self, task: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        def work() -> None:
            try:
                task(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=work, name="tallygate-ops", daemon=True)
        # Started before anyone sees it: a stop at this moment could not join it otherwise.
        with self._lock:
            thread.start()
            self._threads.add(thread)
        return thread


def listen(address: str, owner: SocketOwner = OWN) -> socket.socket:
    """Return a listening, non-blocking socket for `host:port` or a free `unix:/path`.

    Raises `AddressInUse`.
    """
    listener = socket.socket(_family(address))
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            listener.bind(path)
            owner.give(path)
        else:
            host, _, port = address.rpartition(":")
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host.removeprefix("[").removesuffix("]"), int(port)))
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressInUse(f"cannot listen on {address}") from error
    return listener


def _family(address: str) -> socket.AddressFamily:
    if address.startswith("unix:"):
        return socket.AF_UNIX
    return socket.AF_INET6 if address.startswith("[") else socket.AF_INET


def short_folder() -> str | None:
    """Return the folder for private sockets: the usual one, unless its name is too long."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) < 60 else "/tmp"  # noqa: S108 - made private


def _receive_until(
    connection: socket.socket,
    received: bytes,
    deadline: float,
    enough: Callable[[bytes], bool],
) -> bytes:
    """Return what came until it is enough, too much or over; raise TimeoutError at the deadline."""
    while not enough(received) and len(received) <= HEAD_BYTES_MAX:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        part = connection.recv(COPY_BYTES)
        if not part:
            break
        received += part
    return received


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until either side ends, and end both: HTTP/2 has no half of a connection."""
    with contextlib.suppress(OSError):
        while part := source.recv(COPY_BYTES):
            target.sendall(part)
    for each in (source, target):
        _shut(each, socket.SHUT_RDWR)


def _shut(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)


__all__ = ["Heartbeat", "OpsListener", "OpsOptions", "Readiness"]
