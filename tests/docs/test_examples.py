"""The documentation's examples work: its code runs against a live server, its payloads are real."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.postgres import messages
from tallygate.adapters.webhook.signature import signing_keys
from tallygate.commands.dev import development
from tallygate.domain.credit import CreditGrant, GrantId
from tallygate.domain.event import EventContext, ThresholdCrossing, UsageEvent
from tallygate.domain.ids import EventId, LimitId, MeterName, OperationId, SourceId, TenantId
from tallygate.domain.window import from_datetime

# Its services are what reflection offers; importing them makes them known to the pool.
from tallygate.gen.v1 import admin_pb2, quota_pb2, usage_pb2
from tallygate.settings import Settings

from .pages import block, blocks, commands

KNOWN = (admin_pb2, quota_pb2, usage_pb2)
ADDRESS = "127.0.0.1:50051"
FREE = "127.0.0.1:0"
RUN_TIMEOUT_S = 60.0
SECRET = "whsec_" + "c2VjcmV0LW9mLTMyLWJ5dGVzLWZvci1hLXRlc3QhISE="


async def test_calls_of_the_readme_work(tmp_path: Path) -> None:
    """What the README calls in Python prints what it shows; its grpcurl call is answered."""
    settings = Settings(
        data_dir=tmp_path,
        grpc_address=(FREE,),
        ops_address=FREE,
        control_address=FREE,
        default_deadline_ms=10_000,
    )
    async with development(settings) as running:
        address = running.process.grpc_addresses[0]
        code = block("README.md", "python", "check_and_consume")
        # The usual deadline is for a reader's machine, not for a loaded one.
        code = code.replace(f'"{ADDRESS}"', f'"{address}", timeout={RUN_TIMEOUT_S}')
        assert await run_python(code) == block("README.md", "text", "order-1001")
        for method, body in grpcurl_calls():
            reply = await call(address, method, body)
            assert reply["eventId"] == json.loads(body)["event_id"]


def test_grpcurl_calls_are_found() -> None:
    """The README has a call with grpcurl, whose body fits its method's request."""
    calls = grpcurl_calls()
    assert calls
    for method, body in calls:
        json_format.Parse(body, request_of(method)())
        with pytest.raises(json_format.ParseError):
            json_format.Parse('{"tennant_id": "acme"}', request_of(method)())


def test_every_block_has_a_known_language() -> None:
    """No block escapes the tests by being in a language that none of them looks at."""
    known = {"", "console", "json", "promql", "python", "sql", "text", "toml", "yaml"}
    # Run by each client's own tests.
    known |= {"go", "java", "js", "properties", "xml"}
    for each in blocks():
        assert each.language in known, (each.page, each.line)
        if each.language == "python":
            compile(each.text, each.page, "exec")


def test_webhooks_are_verified() -> None:
    """The verification shown takes what we sign, also while a secret is rotated, and no other."""
    verify = verification()
    body = b'{"type":"usage.batch"}'
    old = "whsec_" + "b2xkLXNlY3JldC1vZi0zMi1ieXRlcy1mb3ItYS10ZXN0IQ=="
    now_s = int(time.time())
    headers = signed(f"{SECRET} {old}", "message-1", now_s, body)
    verify(SECRET, headers, body)
    verify(old, headers, body)
    with pytest.raises(ValueError, match="not signed"):
        verify(SECRET, headers, body + b" ")
    with pytest.raises(ValueError, match="not signed"):
        verify(SECRET, {**headers, "webhook-id": "message-2"}, body)
    with pytest.raises(ValueError, match="too old"):
        verify(SECRET, signed(SECRET, "message-1", now_s - 301, body), body)


def test_usage_batch_is_as_shown() -> None:
    """The example of a usage batch is, to the letter, what its event gives."""
    shown = json.loads(block("docs/webhooks.md", "json", "usage.batch"))
    (event,) = shown["data"]["events"]
    (message,) = messages._usage_batches([to_event(event)])
    assert json.loads(message.payload) == shown


def test_threshold_crossing_is_as_shown() -> None:
    """The example of a threshold crossing is, to the letter, what a crossing gives."""
    shown = json.loads(block("docs/webhooks.md", "json", "threshold_crossed"))
    found = shown["data"]
    crossing = ThresholdCrossing(
        tenant_id=TenantId(found["tenant_id"]),
        limit_id=LimitId(found["limit_id"]),
        meter=MeterName(found["meter"]),
        ratio_ppm=int(float(found["ratio"]) * 1_000_000),
        threshold=found["threshold"],
        used=found["used"],
        limit=found["limit"],
        window_start_us=instant(found["window_start"]),
        window_end_us=instant(found["window_end"]),
        crossed_at_us=instant(shown["timestamp"]),
    )
    assert json.loads(messages._crossing(crossing).payload) == shown


def test_low_balance_is_as_shown() -> None:
    """The example of a low balance is, to the letter, what a fall to a low mark gives."""
    shown = json.loads(block("docs/webhooks.md", "json", "balance.low"))
    found = shown["data"]
    crossing = ThresholdCrossing(
        tenant_id=TenantId(found["tenant_id"]),
        limit_id=LimitId(found["limit_id"]),
        meter=MeterName(found["meter"]),
        ratio_ppm=0,
        threshold=found["threshold"],
        used=found["remaining"],
        limit=0,
        window_start_us=0,
        window_end_us=0,
        crossed_at_us=instant(shown["timestamp"]),
    )
    assert json.loads(messages._low(crossing).payload) == shown


def test_grant_is_as_shown() -> None:
    """The example of a grant is, to the letter, what a grant gives."""
    shown = json.loads(block("docs/webhooks.md", "json", "credit.granted"))
    found = shown["data"]
    grant = CreditGrant(
        tenant_id=TenantId(found["tenant_id"]),
        limit_id=LimitId(found["limit_id"]),
        grant_id=GrantId(found["grant_id"]),
        seq=1,
        amount=found["amount"],
        remaining=found["amount"],
        priority=found["priority"],
        starts_us=instant(found["starts_at"]),
        expires_us=instant(found["expires_at"]),
        created_at_us=instant(shown["timestamp"]),
        reason=found["reason"],
    )
    assert json.loads(messages._grant(grant).payload) == shown


def test_destination_is_as_the_catalog_takes_it() -> None:
    """The destination shown is one that a catalog may declare."""
    shown = block("docs/webhooks.md", "yaml", "destinations")
    parsed = parse(f"version: 1\nmeters:\n  requests: {{aggregation: count}}\n{shown}")
    (destination,) = parsed.catalog.destinations
    assert destination.types == (messages.USAGE_BATCH, messages.THRESHOLD_CROSSED)


async def run_python(code: str) -> str:
    """Run code as a reader would, in a process of its own; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            printed, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


def grpcurl_calls() -> list[tuple[str, str]]:
    """Return method and body of each call with grpcurl in the README."""
    return [
        (words[-1], words[words.index("-d") + 1])
        for each in blocks("console")
        if each.page == "README.md"
        for words in commands(each.text)
        if words[0] == "grpcurl"
    ]


def request_of(method: str) -> type[Message]:
    """Return the request class of `package.Service/Method`."""
    return message_factory.GetMessageClass(descriptor_of(method).input_type)


def reply_of(method: str) -> type[Message]:
    """Return the response class of `package.Service/Method`."""
    return message_factory.GetMessageClass(descriptor_of(method).output_type)


def descriptor_of(method: str) -> MethodDescriptor:
    """Return what reflection would say of `package.Service/Method`."""
    service, _, name = method.partition("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]


async def call(address: str, method: str, body: str) -> dict[str, object]:
    """Make a call as grpcurl does: JSON in, JSON out."""
    async with grpc.aio.insecure_channel(address) as channel:
        send: grpc.aio.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_of(method).FromString,
        )
        reply = await send(json_format.Parse(body, request_of(method)()), timeout=RUN_TIMEOUT_S)
    return dict(json_format.MessageToDict(reply))


def verification() -> Callable[[str, Mapping[str, str], bytes], None]:
    """Return the function that docs/webhooks.md shows."""
    names: dict[str, Callable[[str, Mapping[str, str], bytes], None]] = {}
    exec(block("docs/webhooks.md", "python", "def verify"), names)
    return names["verify"]


def signed(secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that a sender sets."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signing_keys(secret).sign(message_id, timestamp_s, body),
    }


def to_event(shown: dict[str, object]) -> UsageEvent:
    """Return the event that a batch shows."""
    context = shown["context"]
    dimensions = shown["dimensions"]
    assert isinstance(context, dict)
    assert isinstance(dimensions, dict)
    return UsageEvent(
        event_id=EventId(str(shown["event_id"])),
        tenant_id=TenantId(str(shown["tenant_id"])),
        meter=MeterName(str(shown["meter"])),
        amount=int(str(shown["amount"])),
        event_time_us=instant(str(shown["event_time"])),
        operation_id=OperationId(str(shown["operation_id"])),
        context=EventContext(**context),
        dimensions=dimensions,
        metadata_json=json.dumps(shown["metadata"]),
        received_at_us=instant(str(shown["received_at"])),
        source_id=SourceId(str(shown["source_id"])),
        source_lane=int(str(shown["source_lane"])),
        source_seq=int(str(shown["source_seq"])),
    )


def instant(text: str) -> int:
    """Return an RFC 3339 time as microseconds."""
    return from_datetime(datetime.fromisoformat(re.sub(r"Z$", "+00:00", text)))
