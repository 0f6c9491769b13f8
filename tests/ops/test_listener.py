"""Facts about the ops listener over real connections."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from tallygate.api import ops
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions, Readiness
from tallygate.api.socket_lock import AddressInUse
from tests.servers import eventually

SERVICE = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TIMEOUT_S = 10.0

Start = Callable[..., OpsListener]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start listeners, and stop them afterwards."""
    with ExitStack() as stack:

        def started(
            address: str = "127.0.0.1:0",
            *,
            heartbeat: Heartbeat | None = None,
            stall_s: float = 60.0,
            refused: Callable[[], None] = lambda: None,
        ) -> OpsListener:
            listener = OpsListener(
                OpsOptions(
                    address,
                    CollectorRegistry(),
                    lambda: Readiness(ready=True, components={}),
                    heartbeat or Heartbeat(),
                    stall_s,
                    (SERVICE,),
                    refused,
                )
            )
            listener.start()
            stack.callback(listener.stop)
            return listener

        yield started


def get(listener: OpsListener, path: str) -> tuple[int, str]:
    """Return the status and the body of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def channel(listener: OpsListener) -> grpc.Channel:
    """Return a channel of its own connection, as grpcio shares connections otherwise."""
    return grpc.insecure_channel(
        f"127.0.0.1:{listener.port}", [("grpc.use_local_subchannel_pool", 1)]
    )


def check(connection: grpc.Channel, service: str = "") -> int:
    """Return what gRPC health says of a service."""
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_pb2_grpc.HealthStub(connection).Check(request, timeout=TIMEOUT_S)
    return int(answer.status)


def test_one_port_speaks_both(start: Start) -> None:
    """HTTP pages and gRPC health answer on the same port."""
    listener = start()
    listener.set_serving("", True)
    with channel(listener) as connection:
        assert check(connection) == SERVING
        assert get(listener, "/livez") == (200, "ok\n")
        assert get(listener, "/readyz")[0] == 200
        assert get(listener, "/metrics")[0] == 200


def test_health_starts_as_not_serving(start: Start) -> None:
    """A service serves once it is said to, and not before."""
    listener = start()
    with channel(listener) as connection:
        assert check(connection, SERVICE) == NOT_SERVING
        listener.set_serving(SERVICE, True)
        assert check(connection, SERVICE) == SERVING


def test_health_of_strangers_is_not_found(start: Start) -> None:
    """A service that nobody named is NOT_FOUND, as the standard has it."""
    with channel(start()) as connection, pytest.raises(grpc.RpcError) as caught:
        check(connection, "strange.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_lists_services(start: Start) -> None:
    """List names every service with its status."""
    listener = start()
    listener.set_serving("", True)
    with channel(listener) as connection:
        stub = health_pb2_grpc.HealthStub(connection)
        answer = stub.List(health_pb2.HealthListRequest(), timeout=TIMEOUT_S)
    assert {name: each.status for name, each in answer.statuses.items()} == {
        "": SERVING,
        SERVICE: NOT_SERVING,
    }


async def test_watchers_hear_of_changes(start: Start) -> None:
    """A watcher gets the status at once and again when it changes, stopping included."""
    listener = start()
    with channel(listener) as connection:
        stub = health_pb2_grpc.HealthStub(connection)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        heard: list[int] = []

        def listen() -> None:
            # Reads on while the listener stops, as a client does; the end of it is an error.
            with suppress(grpc.RpcError):
                heard.extend(each.status for each in watch)

        reader = threading.Thread(target=listen)
        reader.start()
        await eventually(lambda: heard == [NOT_SERVING], what="the first status")
        listener.set_serving("", True)
        await eventually(lambda: heard == [NOT_SERVING, SERVING], what="the change")
        listener.stop()
        reader.join(TIMEOUT_S)
    assert heard == [NOT_SERVING, SERVING, NOT_SERVING]


def test_watchers_may_leave_while_others_are_told(start: Start) -> None:
    """Watchers that leave while the status changes do not lock the listener up."""
    listener = start()
    for turn in range(20):
        with channel(listener) as connection:
            stub = health_pb2_grpc.HealthStub(connection)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(5)]
            for watch in watches:
                next(watch)
                watch.cancel()
            listener.set_serving("", turn % 2 == 0)
    with channel(listener) as connection:
        assert check(connection) == NOT_SERVING


def test_watchers_of_strangers_are_told_so(start: Start) -> None:
    """Watching a service that nobody named says that it is unknown, as the standard has it."""
    with channel(start()) as connection:
        stub = health_pb2_grpc.HealthStub(connection)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="strange"), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_watchers_leave_room_for_checks(start: Start) -> None:
    """More watchers than threads do not keep a check waiting."""
    listener = start()
    with channel(listener) as connection:
        stub = health_pb2_grpc.HealthStub(connection)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(30)]
        for watch in watches:
            next(watch)
        assert check(connection) == NOT_SERVING


def test_reflection_lists_services(start: Start) -> None:
    """Reflection names the services and gives their descriptors."""
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    with channel(start()) as connection:
        stub = reflection_pb2_grpc.ServerReflectionStub(connection)
        listed, described = stub.ServerReflectionInfo(iter(asked), timeout=TIMEOUT_S)
    assert SERVICE in {each.name for each in listed.list_services_response.service}
    assert described.file_descriptor_response.file_descriptor_proto


def test_reflection_clients_leave_room_for_checks(start: Start) -> None:
    """Reflection streams that stay open are bounded, and a check still gets its thread."""
    listener = start()
    held = threading.Event()

    def hold() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        held.wait(TIMEOUT_S)

    with channel(listener) as connection:
        stub = reflection_pb2_grpc.ServerReflectionStub(connection)
        streams = [stub.ServerReflectionInfo(hold(), timeout=TIMEOUT_S) for _ in range(4)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(hold(), timeout=TIMEOUT_S))
        assert check(connection) == NOT_SERVING
        held.set()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stalled_loop_shows(start: Start) -> None:
    """A loop that no longer beats fails liveness and health, and beating again heals both."""
    heartbeat = Heartbeat()
    listener = start(heartbeat=heartbeat, stall_s=0.0)
    listener.set_serving("", True)
    with channel(listener) as connection:
        assert get(listener, "/livez")[0] == 503
        assert get(listener, "/readyz")[0] == 503
        assert check(connection) == NOT_SERVING
    beating = start(heartbeat=heartbeat, stall_s=60.0)
    heartbeat.beat()
    assert get(beating, "/livez")[0] == 200


async def test_probes_answer_while_the_loop_is_blocked(start: Start) -> None:
    """A blocked event loop does not delay a probe."""
    listener = start()
    # This call blocks the loop that it runs on, which therefore cannot have answered it.
    assert get(listener, "/livez")[0] == 200


async def test_silent_clients_do_not_hold_probes(start: Start) -> None:
    """Connections beyond the bound are cut and counted, and room that is freed is used."""
    cut: list[int] = []
    listener = start(refused=lambda: cut.append(1))
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), 5))
            for _ in range(ops.CONNECTIONS_MAX + 1)
        ]
        await eventually(lambda: cut, what="the connection too many is cut")
        assert silent[-1].recv(1) == b""
    await eventually(lambda: _answers(listener), what="a probe is answered again")


def _answers(listener: OpsListener) -> bool:
    try:
        return get(listener, "/livez")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_grpc_connections_leave_room_for_probes(start: Start) -> None:
    """Clients that speak HTTP/2 cannot take more than their part of the connections."""
    cut = threading.Event()
    listener = start(refused=cut.set)
    with ExitStack() as stack:
        for _ in range(ops.GRPC_CONNECTIONS_MAX + 1):
            client = socket.create_connection(("127.0.0.1", listener.port), 5)
            stack.enter_context(client)
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert cut.wait(TIMEOUT_S)
        assert get(listener, "/livez")[0] == 200


def test_slow_requests_are_cut(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not arrive in time ends without an answer."""
    monkeypatch.setattr(ops, "HTTP_TIMEOUT_S", 0.05)
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port), TIMEOUT_S) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert client.recv(100) == b""


def test_requests_in_pieces_are_answered(start: Start) -> None:
    """A request may arrive byte by byte."""
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port), TIMEOUT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /livez HTTP/1.1\r\n\r\n":
            client.sendall(bytes([byte]))
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_endless_headers_are_refused(start: Start) -> None:
    """Headers beyond the bound are a bad request."""
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port), TIMEOUT_S) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * ops.HEAD_BYTES_MAX)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_an_address_in_use_is_named(start: Start) -> None:
    """Two listeners on one port: the second is told which address is taken."""
    address = f"127.0.0.1:{start().port}"
    with pytest.raises(AddressInUse) as caught:
        start(address)
    assert address in str(caught.value)


def test_unix_sockets_work(start: Start, tmp_path: Path) -> None:
    """A Unix socket serves, admits owner and group only, and is gone after the stop."""
    path = tmp_path / "ops.sock"
    listener = start(f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    with grpc.insecure_channel(f"unix:{path}") as connection:
        assert check(connection) == NOT_SERVING
    listener.stop()
    assert not path.exists()


def test_abandoned_unix_sockets_are_replaced(start: Start, tmp_path: Path) -> None:
    """The socket of a killed process is taken over; that of a running one is not."""
    path = tmp_path / "ops.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    start(f"unix:{path}")
    with pytest.raises(AddressInUse):
        start(f"unix:{path}")


def test_stop_at_once_after_a_connection(start: Start) -> None:
    """A stop joins the threads of connections that are accepted at that very moment."""
    for _ in range(50):
        listener = start()
        connections = [
            socket.create_connection(("127.0.0.1", listener.port), TIMEOUT_S) for _ in range(3)
        ]
        listener.stop()
        assert not listener._threads
        for connection in connections:
            connection.close()


async def test_stop_ends_everything(start: Start) -> None:
    """A stop is quick with connections open, leaves no thread, and may be repeated."""
    before = {each.ident for each in threading.enumerate()}
    listener = start()
    port = listener.port
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as idle:
        await eventually(lambda: listener._open, what="the connection is taken")
        began = time.monotonic()
        listener.stop()
        listener.stop()
        assert time.monotonic() - began < ops.STOP_TIMEOUT_S
        assert idle.recv(1) == b""
    left = [each.name for each in threading.enumerate() if each.ident not in before]
    assert "tallygate-ops" not in left
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
