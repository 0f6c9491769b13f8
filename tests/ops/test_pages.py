"""Facts about the pages of the ops listener, without any socket."""

import pytest
from prometheus_client import CollectorRegistry, Counter

from tallygate.api.ops_pages import Pages, Readiness

READY = Readiness(ready=True, components={"catalog": "version 3", "quota": "listening"})
DRAINING = Readiness(ready=False, components={"catalog": "version 3", "quota": "draining"})


def ask(
    request: str,
    *,
    readiness: Readiness = READY,
    stalled_s: float | None = None,
    registry: CollectorRegistry | None = None,
) -> tuple[int, str, str]:
    """Return the status, the head and the body of the reply to a request."""
    pages = Pages(registry or CollectorRegistry(), lambda: readiness, lambda: stalled_s)
    head, _, body = pages.answer(request.encode("latin-1")).decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), head, body


def get(path: str, *headers: str) -> str:
    """Return a GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""])


def test_live_while_the_loop_runs() -> None:
    """A process whose loop runs is live, ready or not."""
    assert ask(get("/livez"), readiness=DRAINING)[::2] == (200, "ok\n")


def test_not_live_when_stalled() -> None:
    """A stalled loop fails liveness and readiness, and the text says for how long."""
    status, _, body = ask(get("/livez"), stalled_s=12.34)
    assert (status, "12.3 s" in body) == (503, True)
    assert ask(get("/readyz"), stalled_s=12.34)[0] == 503


def test_readiness_follows_the_process() -> None:
    """Readiness is what the process says of itself."""
    assert ask(get("/readyz"))[::2] == (200, "ok\n")
    assert ask(get("/readyz"), readiness=DRAINING)[::2] == (503, "not ready\n")


def test_verbose_readiness_lists_components() -> None:
    """A verbose answer names each component and its state, the loop included."""
    _, _, body = ask(get("/readyz?verbose"), readiness=DRAINING)
    assert body.splitlines() == [
        "not ready",
        "catalog: version 3",
        "quota: draining",
        "loop: running",
    ]


def test_a_failing_check_is_not_ready() -> None:
    """A readiness check that raises means not ready, and its text stays inside."""

    def broken() -> Readiness:
        raise RuntimeError("postgres://user:secret@db")

    pages = Pages(CollectorRegistry(), broken, lambda: None)
    reply = pages.answer(get("/readyz").encode())
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"secret" not in reply


def test_metrics_are_exposed() -> None:
    """The metrics page shows the registry in Prometheus's text format."""
    registry = CollectorRegistry()
    Counter("apples_total", "Apples.", registry=registry).inc(3)
    status, head, body = ask(get("/metrics"), registry=registry)
    assert status == 200
    assert "Content-Type: text/plain; version=" in head
    assert "apples_total 3.0\n" in body


def test_metrics_in_open_metrics() -> None:
    """A scraper that prefers OpenMetrics gets it, end mark included."""
    accept = "Accept: application/openmetrics-text; version=1.0.0"
    _, head, body = ask(get("/metrics", accept))
    assert "application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


def test_a_failing_collector_is_an_error() -> None:
    """A collector that raises gives a 500 and no half of a page."""

    class Broken:
        def describe(self) -> list[object]:
            return []

        def collect(self) -> list[object]:
            raise RuntimeError("boom")

    registry = CollectorRegistry()
    registry.register(Broken())  # type: ignore[arg-type]
    status, _, body = ask(get("/metrics"), registry=registry)
    assert (status, "boom" in body) == (500, False)


def test_head_has_no_body() -> None:
    """A HEAD request gets the length of the body, and not the body."""
    status, head, body = ask(get("/livez").replace("GET", "HEAD", 1))
    assert (status, body) == (200, "")
    assert "Content-Length: 3" in head


def test_other_methods_are_refused() -> None:
    """A POST is refused, naming what is allowed."""
    status, head, _ = ask(get("/livez").replace("GET", "POST", 1))
    assert status == 405
    assert "Allow: GET, HEAD" in head


def test_unknown_paths_are_not_found() -> None:
    """An unknown path is not found, and the answer names the known ones."""
    status, _, body = ask(get("/admin"))
    assert (status, "/readyz" in body) == (404, True)


@pytest.mark.parametrize(
    "request_text",
    ["", "hello\r\n\r\n", "GET /livez\r\n\r\n", "GET /livez HTTP/2\r\n\r\n", "GET /livez HTTP/1.1"],
)
def test_garbage_is_a_bad_request(request_text: str) -> None:
    """What is no whole HTTP/1 request gets a 400."""
    assert ask(request_text)[0] == 400
