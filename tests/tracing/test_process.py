"""The installed command with tracing: what it exports, and what it says where it cannot."""

import asyncio
import urllib.request
from pathlib import Path

import pytest

from tallygate.adapters.prometheus.merging import OPEN_METRICS
from tallygate.domain.errors import InvalidField
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tallygate.settings_sources import load_settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume
from tests.e2e.processes import PAGE_TIMEOUT_S, site
from tests.sidecar import channel
from tests.tracing.collector import collecting

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADER = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
METHOD = "tallygate.v1.QuotaService/CheckAndConsume"


async def test_a_process_exports_before_it_ends(tmp_path: Path, redis_url: str) -> None:
    """A call just before SIGTERM is with the collector when the process is gone, exit code 0.

    The bucket of its duration names the trace until then.
    """
    catalog = catalogs.write(tmp_path, catalogs.OPEN)
    with collecting() as collector:
        async with site(
            tmp_path,
            redis_url=redis_url,
            catalog=catalog,
            counter_rebuild="none",
            tracing="otlp",
            tracing_endpoint=f"http://{collector.address}",
            tracing_ratio=0,
        ) as place:
            server = await (await place.start("serve")).ready()
            async with channel(server.address) as opened:
                stub = quota_pb2_grpc.QuotaServiceStub(opened)
                await stub.CheckAndConsume(consume("op"), metadata=HEADER, timeout=CALL_TIMEOUT_S)
                quiet = quota_pb2.GetQuotaRequest(tenant_id="acme")
                await stub.GetQuota(quiet, timeout=CALL_TIMEOUT_S)
            text = await asyncio.to_thread(_open_metrics, server.ops_port)
            assert f'# {{trace_id="{TRACE}"}}' in text
            assert await server.terminate() == 0
        (call,) = collector.named(METHOD)
        assert {each.trace_id.hex() for each in collector.spans} == {TRACE}
        assert {each.name for each in collector.spans} >= {METHOD, "admit batch", "EVALSHA"}
        assert call.parent_span_id.hex() == "00f067aa0ba902b7"


async def test_what_cannot_be_is_said_at_the_start(tmp_path: Path, redis_url: str) -> None:
    """A file of headers that is not there keeps a process from starting, by its setting."""
    given = {
        "redis_url": redis_url,
        "data_dir": tmp_path,
        "tracing": "otlp",
        "tracing_headers_file": tmp_path / "none",
    }
    settings = load_settings(given, environ={})
    with pytest.raises(InvalidField) as caught:
        async with running(settings, frozenset({Role.SERVE})):
            pass
    assert caught.value.field == "tracing_headers_file"


def _open_metrics(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPEN_METRICS}
    )
    with urllib.request.urlopen(request, timeout=PAGE_TIMEOUT_S) as reply:
        text: str = reply.read().decode()
    return text
