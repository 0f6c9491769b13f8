"""What can be set of tracing, and what is refused, by its name."""

import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tallygate.adapters.log import place_in_trace
from tallygate.adapters.prometheus.tracing import TracingMetrics
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import TenantId
from tallygate.domain.trace import NOWHERE, place, span_id, trace_id
from tallygate.ports.tracing import Kind, working_for
from tallygate.settings_sources import SettingsInvalid, load_settings
from tallygate.testing.tracing import FakeTracer
from tallygate.wiring.tracing import (
    TENANT,
    TracingMissing,
    carrying,
    open_tracing,
    tenant_key,
)

CALLER = place(0xABC, 0xDEF)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"tracing_endpoint": "127.0.0.1:4317"}, "tracing_endpoint"),
        ({"tracing_endpoint": "http://127.0.0.1"}, "tracing_endpoint"),
        ({"tracing_endpoint": "http://a:99999"}, "tracing_endpoint"),
        ({"tracing_endpoint": "https://key:hunter2@collector:4317"}, "tracing_endpoint"),
        ({"tracing_endpoint": "http://collector:4318/v1/traces"}, "tracing_endpoint"),
        ({"tracing_ratio": 1.5}, "tracing_ratio"),
        ({"tracing_calls_per_s_max": 0}, "tracing_calls_per_s_max"),
        ({"tracing": "jaeger"}, "tracing"),
        ({"tracing_cert_file": "a"}, "tracing_key_file"),
        ({"tracing_ca_file": "a"}, "https://"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    """Each fault names its setting, and quotes no part of an address, which may hold a key."""
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(given, environ={})
    assert named in str(caught.value).replace("-", "_")
    assert "hunter2" not in str(caught.value)


def test_off_is_nothing() -> None:
    """By default there is no tracer, whatever else is set."""
    settings = load_settings({"tracing_headers_file": "none"}, environ={})
    assert open_tracing(settings, TracingMetrics(CollectorRegistry()), "here") is None


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with how to get it."""
    monkeypatch.setitem(sys.modules, "tallygate.adapters.tracing.sending", None)
    settings = load_settings({"tracing": "otlp"}, environ={})
    with pytest.raises(TracingMissing, match=r"tallygate\[otel\]") as caught:
        open_tracing(settings, TracingMetrics(CollectorRegistry()), "here")
    assert caught.value.field == "tracing"


def test_a_tenant_is_named_by_a_key_only() -> None:
    """The same for the same key, another for another, and nothing at all without one."""
    tracer = FakeTracer()
    found = []
    for key in (b"k" * 16, b"k" * 16, b"l" * 16, b""):
        span = tracer.begin("call", Kind.SERVER, CALLER, {})
        assert span is not None
        with working_for(span):
            assert carrying(key)(TenantId("acme")) == span.place
        found.append(span.attributes.get(TENANT))
    one, again, other, none = found
    assert one == again != other
    assert (none, len(str(one))) == (None, 16)
    assert carrying(b"k" * 16)(TenantId("acme")) == NOWHERE


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    """A key that can be guessed, and one that is not there, end the start by their setting."""
    short = tmp_path / "key"
    short.write_text("guessable")
    for path in (short, tmp_path / "none"):
        with pytest.raises(InvalidField) as caught:
            tenant_key(path)
        assert caught.value.field == "tracing_tenant_key_file"


def test_log_lines_say_for_which_span() -> None:
    """Within one, an event has its ids; outside, it is as ever."""
    span = FakeTracer().begin("call", Kind.SERVER, CALLER, {})
    assert span is not None
    assert place_in_trace(None, "info", {"event": "a"}) == {"event": "a"}
    with working_for(span):
        event = place_in_trace(None, "info", {"event": "a"})
    assert event == {
        "event": "a",
        "trace_id": trace_id(CALLER),
        "span_id": span_id(span.place),
    }
