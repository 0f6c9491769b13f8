"""The pages of the ops listener: `/livez`, `/readyz` and `/metrics`, from request to reply bytes.

Guarantees: every request gets a well-formed HTTP/1.1 reply after which the connection ends; a
fault in what is asked becomes a 500 or 503 without its text.
Refuses to know: sockets and threads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

PLAIN: Final = "text/plain; charset=utf-8"
METHODS: Final = ("GET", "HEAD")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether calls should be sent here, and the state of each component in a word or two."""

    ready: bool
    components: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply before it is bytes."""

    status: HTTPStatus
    text: str | bytes
    content_type: str = PLAIN

    def encoded(self, *, with_body: bool) -> bytes:
        """Return the reply as it goes over the wire."""
        body = self.text if isinstance(self.text, bytes) else f"{self.text}\n".encode()
        allow = f"Allow: {', '.join(METHODS)}\r\n" if self.status is NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"{allow}"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


OK: Final = HTTPStatus.OK
NOT_ALLOWED: Final = HTTPStatus.METHOD_NOT_ALLOWED
UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE


class Pages:
    """Answers requests. `stalled` is the seconds of the loop's silence, None while it runs."""

    def __init__(
        self,
        registry: CollectorRegistry,
        readiness: Callable[[], Readiness],
        stalled: Callable[[], float | None],
    ) -> None:
        self._registry = registry
        self._readiness = readiness
        self._stalled = stalled

    def answer(self, head: bytes) -> bytes:
        """Return the reply to a request's line and headers."""
        text, end, _ = head.partition(b"\r\n\r\n")
        if not end:
            # Its sender stopped in the middle, or sends more than any probe would.
            return Reply(HTTPStatus.BAD_REQUEST, "bad request").encoded(with_body=True)
        line, *headers = text.decode("latin-1").split("\r\n")
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return Reply(HTTPStatus.BAD_REQUEST, "bad request").encoded(with_body=True)
        method, target, _ = parts
        if method not in METHODS:
            return Reply(NOT_ALLOWED, "only GET and HEAD").encoded(with_body=True)
        path, _, query = target.partition("?")
        return self._page(path, query, headers).encoded(with_body=method == "GET")

    def _page(self, path: str, query: str, headers: list[str]) -> Reply:
        match path:
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz(verbose="verbose" in parse_qs(query, keep_blank_values=True))
            case "/metrics":
                return self._metrics(headers)
            case _:
                return Reply(HTTPStatus.NOT_FOUND, "not found: try /livez, /readyz or /metrics")

    def _livez(self) -> Reply:
        silent_s = self._stalled()
        if silent_s is not None:
            return Reply(UNAVAILABLE, f"the main loop has not run for {silent_s:.1f} s")
        return Reply(OK, "ok")

    def _readyz(self, *, verbose: bool) -> Reply:
        silent_s = self._stalled()
        try:
            readiness = self._readiness()
        except Exception:  # whatever it is, we are not ready
            log.exception("readiness_failed")
            return Reply(UNAVAILABLE, "not ready: the check itself failed")
        components = {
            **readiness.components,
            "loop": "running" if silent_s is None else f"stalled for {silent_s:.1f} s",
        }
        ready = readiness.ready and silent_s is None
        lines = ["ok" if ready else "not ready"]
        if verbose:
            lines += [f"{name}: {state}" for name, state in components.items()]
        return Reply(OK if ready else UNAVAILABLE, "\n".join(lines))

    def _metrics(self, headers: list[str]) -> Reply:
        accepted = [
            value.strip()
            for name, _, value in (header.partition(":") for header in headers)
            if name.lower() == "accept"
        ]
        try:
            encode, content_type = choose_encoder(",".join(accepted))
            return Reply(OK, encode(self._registry), content_type)
        except Exception:  # a collector's fault must not end the thread
            log.exception("metrics_failed")
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics cannot be read")
