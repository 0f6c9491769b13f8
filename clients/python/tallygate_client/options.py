"""How a client behaves: defaults with their reasons, and hooks that tell what it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .errors import TallygateError
from .gen.v1 import quota_pb2, usage_pb2

TARGET_VARIABLE = "TALLYGATE_TARGET"
TARGET_DEFAULT = "127.0.0.1:50051"
# The sidecar is on the same host; what takes longer than this is an outage to an app.
TIMEOUT_S = 1.0

OnAbsent = Literal["closed", "open"]
BufferedRequest = usage_pb2.RecordUsageRequest | quota_pb2.CommitRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What proves the sidecar to the client, and the client to the sidecar. All are PEM.

    Attributes:
        ca: the certificates that may sign the sidecar's; None for the machine's own.
        certificate: the client's, with its chain; None where the sidecar asks for none.
        key: the certificate's private key.
        server_name: the name to ask the certificate for, where the target is another.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Tls: certificate and key belong together")

    @classmethod
    def from_files(
        cls,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Read the PEM files, now and once."""
        ca_pem, certificate_pem, key_pem = (
            Path(each).read_bytes() if each is not None else None for each in (ca, certificate, key)
        )
        return cls(ca=ca_pem, certificate=certificate_pem, key=key_pem, server_name=server_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferOptions:
    """Bounds of the buffer, and where it spools.

    Attributes:
        max_events: entries held at once, waiting or under way; beyond it is `BufferFull`.
        batch: entries of one request, at most 1,000; half of that keeps a request under 4 MiB.
        flush_ms: how long an entry waits for others to join its request.
        spool_dir: a directory of this client's own in which entries survive the process.
        spool_sync_ms: how often the spool is synced to the disk; 0 is each entry. A process that
            is killed loses nothing either way, a machine that loses power at most this much.
        spool_max_bytes: what the spool may take; beyond it is `BufferFull`.
    """

    max_events: int = 10_000
    batch: int = 500
    flush_ms: int = 100
    spool_dir: str | Path | None = None
    spool_sync_ms: int = 100
    spool_max_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1_000:
            raise ValueError("BufferOptions: batch is 1 to 1,000")
        for name in ("max_events", "spool_max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"BufferOptions: {name} is at least 1")
        for name in ("flush_ms", "spool_sync_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"BufferOptions: {name} is at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a client tells: for metrics and logs. What a hook raises is swallowed.

    Attributes:
        on_call: a call ended: its method, its gRPC code's name, and how many seconds it took.
        on_local: nobody answered, and the local policy has decided: the method, and the policy.
        on_rejected: what was buffered was refused for good: the request, and why.
        on_buffer: how many entries the buffer holds, whenever that changes.
    """

    on_call: Callable[[str, str, float], None] | None = None
    on_local: Callable[[str, str], None] | None = None
    on_rejected: Callable[[BufferedRequest, TallygateError], None] | None = None
    on_buffer: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """All options of a client, checked."""

    target: str
    timeout_s: float = TIMEOUT_S
    on_absent: OnAbsent = "closed"
    retry: bool = True
    tls: Tls | None = None
    buffer: BufferOptions | None = None
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        if self.on_absent not in {"closed", "open"}:
            raise ValueError(f"on_absent is 'closed' or 'open', not {self.on_absent!r}")
        if not self.timeout_s > 0:
            raise ValueError("timeout is above 0 seconds")
        if not self.target:
            raise ValueError("target is empty")


def target_of(target: str | None) -> str:
    """Return where to connect to: what is given, else the environment's, else the default."""
    return target or os.environ.get(TARGET_VARIABLE) or TARGET_DEFAULT


def buffer_options_of(buffer: BufferOptions | bool | None) -> BufferOptions | None:
    """Return the buffer's options; True is all defaults."""
    if buffer is True:
        return BufferOptions()
    return buffer or None
