"""Tracing put together: what begins spans, and what sends them.

Guarantees: the SDK is imported only where tracing is on; what was recorded is sent within the
process's grace at its end.
Refuses to know: what is recorded.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tallygate.adapters.prometheus.tracing import TracingMetrics
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.ids import TenantId
from tallygate.domain.trace import NOWHERE
from tallygate.ports.tracing import Tracer, current
from tallygate.settings import Settings

TENANT: Final = "tallygate.tenant.hash"
TENANT_DIGITS: Final = 16
KEY_BYTES_MIN: Final = 16
# Of the grace, what spans have where everything before has taken its time ...
FLUSH_MIN_S: Final = 1.0
# ... and what they have at most: a collector that is away must not keep a process from ending.
FLUSH_MAX_S: Final = 5.0


class TracingMissing(TallygateError):
    """OpenTelemetry's SDK is not installed: install tallygate[otel], or set tracing to off."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What begins spans, how calls are carried, and what ends it all, given some seconds."""

    tracer: Tracer
    carried: Callable[[TenantId], bytes]
    close: Callable[[float], Awaitable[None]]


def open_tracing(settings: Settings, metrics: TracingMetrics, instance: str) -> Tracing | None:
    """Return tracing as it is set, None where it is off.

    Raises `TracingMissing`, and `InvalidField` for a file that cannot be used.
    """
    if settings.tracing == "off":
        return None
    try:
        from tallygate.adapters.tracing.sending import (  # noqa: PLC0415
            Collector,
            SpanQueue,
            tracer_of,
        )
        from tallygate.adapters.tracing.spans import OtelTracer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TracingMissing(field="tracing") from error
    parts = urlsplit(settings.tracing_endpoint)
    to = Collector(
        parts.netloc,
        parts.scheme == "https",
        settings.tracing_headers_file,
        settings.tracing_ca_file,
        settings.tracing_cert_file,
        settings.tracing_key_file,
    )
    key = tenant_key(settings.tracing_tenant_key_file)
    queue = SpanQueue(to, metrics, settings.tracing_queue_max)
    metrics.show(lambda: queue.depth)

    async def close(grace_s: float) -> None:
        await asyncio.to_thread(queue.close, min(max(FLUSH_MIN_S, grace_s), FLUSH_MAX_S))

    tracer = OtelTracer(
        tracer_of(queue, instance, metadata.version("tallygate")),
        settings.tracing_ratio,
        settings.tracing_calls_per_s_max,
        lambda: metrics.dropped("rate", 1),
    )
    return Tracing(tracer, carrying(key), close)


def carrying(key: bytes) -> Callable[[TenantId], bytes]:
    """Return what gives the place of the call at work, and names its tenant, keyed, if it may."""

    def carried(tenant_id: TenantId) -> bytes:
        span = current()
        if span is None:
            return NOWHERE
        if key:
            digest = hmac.new(key, tenant_id.encode(), hashlib.sha256).hexdigest()
            span.tell(TENANT, digest[:TENANT_DIGITS])
        return span.place

    return carried


def tenant_key(path: Path | None) -> bytes:
    """Return the key by which tenants are named, empty for none. Raises `InvalidField`."""
    if path is None:
        return b""
    field = "tracing_tenant_key_file"
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise InvalidField(f"cannot be read: {error.strerror}", field=field) from error
    if len(key) < KEY_BYTES_MIN:
        raise InvalidField(f"must hold at least {KEY_BYTES_MIN} bytes", field=field)
    return key
