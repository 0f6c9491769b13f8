"""What both kinds of client are made with."""

from __future__ import annotations

from .calls import Core
from .options import (
    TIMEOUT_S,
    BufferOptions,
    ClientOptions,
    Hooks,
    OnAbsent,
    Tls,
    buffer_options_of,
    target_of,
)
from .stats import Stats

NO_BUFFER = "made without a buffer: give the client buffer=True, or BufferOptions"


class Configured:
    """A client's options and counts."""

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float = TIMEOUT_S,
        on_absent: OnAbsent = "closed",
        retry: bool = True,
        tls: Tls | None = None,
        buffer: BufferOptions | bool | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        """Make a client; it connects when it is first used.

        Args:
            target: `unix:///path` or `host:port`; the variable `TALLYGATE_TARGET` where it is None,
                else `127.0.0.1:50051`.
            timeout: seconds that a logical call has, retries included.
            on_absent: what to do with `check_and_consume`, `check` and `reserve` when nobody
                answers: `closed` raises, `open` lets the work pass, and counts it.
            retry: whether gRPC retries what is `UNAVAILABLE`, in its budget.
            tls: what proves both sides; plaintext without.
            buffer: bounds of `buffer`; True is the defaults, None is no buffer.
            hooks: what to tell.
        """
        self._options = ClientOptions(
            target=target_of(target),
            timeout_s=timeout,
            on_absent=on_absent,
            retry=retry,
            tls=tls,
            buffer=buffer_options_of(buffer),
            hooks=hooks or Hooks(),
        )
        self._core = Core(self._options)
        self._open()

    def _open(self) -> None:
        """Make what a kind of client has besides."""

    @property
    def target(self) -> str:
        """Where the client connects to."""
        return self._options.target

    def stats(self) -> Stats:
        """Return what the client has done, and what its buffer holds now."""
        intake = self._core.intake
        if intake is None:
            return self._core.counts.read()
        return self._core.counts.read(pending=intake.pending, spool_bytes=intake.spool_bytes)
