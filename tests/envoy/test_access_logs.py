"""Entries of access logs become usage: read as rules say, recorded once, and never hurried."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.api.envoy_entries import Entry, records_of
from tallygate.api.envoy_logs import AccessLogServicer
from tallygate.domain.catalog import Catalog
from tallygate.domain.envoy import (
    EnvoyRules,
    LogField,
    LogGiven,
    LogKind,
    LogMeasure,
    LogPlace,
    LogRule,
)
from tallygate.domain.envoy_log import rule_of, usage_of
from tallygate.domain.errors import (
    BackendUnavailable,
    CatalogNotLoaded,
    EventTimeTooOld,
    InvalidField,
    TallygateError,
)
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.request import Durability, RecordResult, UsageRequest
from tallygate.flow.access_logs import AccessLogs
from tallygate.gen.envoy import access_log_pb2 as pb
from tests.envoy.world import catalog, sidecar
from tests.servers import eventually

HTTP: dict[str, Any] = {
    "common_properties": {
        "start_time": "2027-01-01T00:00:00Z",
        "duration": "1.5s",
        "upstream_cluster": "app",
        "route_name": "main",
        "stream_id": "s-1",
        "custom_tags": {"team": "blue"},
        "downstream_wire_bytes_sent": 900,
        "downstream_wire_bytes_received": 90,
        "metadata": {
            "filter_metadata": {"jwt": {"claims": {"org": "acme", "seats": 7}, "plain": True}}
        },
        "tls_properties": {
            "tls_sni_hostname": "api.example",
            "peer_certificate_properties": {
                "subject": "CN=x",
                "subject_alt_name": [{"dns": "x"}, {"uri": "spiffe://example/app"}],
            },
        },
    },
    "request": {
        "request_method": "REQUEST_METHOD_POST",
        "authority": "api.example",
        "path": "/v1/things?secret=1",
        "request_headers_bytes": 10,
        "request_body_bytes": 20,
        "request_headers": {"x-tenant": "acme"},
    },
    "response": {
        "response_code": 201,
        "response_headers_bytes": 30,
        "response_body_bytes": 400,
        "response_headers": {"x-cost": "5"},
    },
}
TCP: dict[str, Any] = {
    "common_properties": {
        "start_time": "2027-01-01T00:00:00Z",
        "upstream_cluster": "db",
        "access_log_type": "ACCESS_LOG_TYPE_TCP_CONNECTION_END",
    },
    "connection_properties": {"received_bytes": 11, "sent_bytes": 22},
}
NODE = {"node": {"id": "edge-1", "cluster": "edge"}, "log_name": "logs"}
TENANT = LogGiven(LogPlace.REQUEST_HEADER, ("x-tenant",))
REQUESTS, BYTES = MeterName("requests"), MeterName("egress_bytes")
RULE = LogRule(TENANT, ((REQUESTS, LogMeasure.ONE), (BYTES, LogMeasure.RESPONSE_BYTES)))


def message(*entries: dict[str, Any], tcp: bool = False) -> pb.StreamAccessLogsMessage:
    """Return a message with these entries."""
    logs = {"tcp_logs" if tcp else "http_logs": {"log_entry": [*entries]}}
    return json_format.ParseDict({"identifier": NODE, **logs}, pb.StreamAccessLogsMessage())


def http(number: int = 0, **common: Any) -> dict[str, Any]:
    """Return the entry of a request, unlike that of any other number."""
    changed = {**HTTP["common_properties"], "stream_id": f"s-{number}", **common}
    return {**HTTP, "common_properties": changed}


def entry(*entries: dict[str, Any], tcp: bool = False) -> Entry:
    """Return the first entry of such a message."""
    found = message(*entries, tcp=tcp)
    return records_of(found, found.identifier)[0][0]


def field(name: LogField) -> LogGiven:
    """Return where a field's value is."""
    return LogGiven(LogPlace.FIELD, (name.value,))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (LogGiven(LogPlace.TEXT, ("fixed",)), "fixed"),
        (TENANT, "acme"),
        (LogGiven(LogPlace.REQUEST_HEADER, ("absent",)), ""),
        (LogGiven(LogPlace.RESPONSE_HEADER, ("x-cost",)), "5"),
        (LogGiven(LogPlace.METADATA, ("jwt", "claims", "org")), "acme"),
        (LogGiven(LogPlace.METADATA, ("jwt", "claims", "seats")), "7"),
        (LogGiven(LogPlace.METADATA, ("jwt", "claims")), ""),
        (LogGiven(LogPlace.METADATA, ("jwt", "plain")), ""),
        (LogGiven(LogPlace.METADATA, ("jwt", "claims", "org", "deeper")), ""),
        (LogGiven(LogPlace.METADATA, ("other", "org")), ""),
        (LogGiven(LogPlace.TAG, ("team",)), "blue"),
        (LogGiven(LogPlace.TAG, ("absent",)), ""),
        (field(LogField.CLUSTER), "app"),
        (field(LogField.ROUTE), "main"),
        (field(LogField.LOG_NAME), "logs"),
        (field(LogField.NODE), "edge-1"),
        (field(LogField.NODE_CLUSTER), "edge"),
        (field(LogField.SERVER_NAME), "api.example"),
        (field(LogField.PEER), "spiffe://example/app"),
        (field(LogField.AUTHORITY), "api.example"),
        (field(LogField.METHOD), "POST"),
        (field(LogField.PATH), "/v1/things"),
        (field(LogField.STATUS), "201"),
    ],
)
def test_texts(given: LogGiven, value: str) -> None:
    """Every value that a rule may name is found, and is empty where an entry has none."""
    assert entry(HTTP).text(given) == value


def test_texts_of_tcp() -> None:
    """A connection has nothing of HTTP, and the rest all the same."""
    found = entry(TCP, tcp=True)
    assert found.text(field(LogField.CLUSTER)) == "db"
    for given in (TENANT, field(LogField.PATH), field(LogField.STATUS), field(LogField.PEER)):
        assert found.text(given) == ""


def test_measures() -> None:
    """Bytes of HTTP are headers and body, on the wire all that frames them; of TCP all there is."""
    measures = {each: entry(HTTP).measure(each) for each in LogMeasure}
    assert [*measures.values()] == [1, 30, 430, 90, 900, 1_500]
    of_tcp = entry(TCP, tcp=True)
    assert [of_tcp.measure(each) for each in LogMeasure] == [1, 11, 22, 11, 22, 0]


def test_identity() -> None:
    """The same entry has the same id wherever it comes again, and another one another."""
    assert entry(http(1)).identity == entry(http(1)).identity
    assert entry(http(1)).identity != entry(http(2)).identity
    assert entry(HTTP).ended_at_us == 1_798_761_601_500_000


@pytest.mark.parametrize(
    "common",
    [
        {"intermediate_log_entry": True},
        {"access_log_type": "ACCESS_LOG_TYPE_DOWNSTREAM_PERIODIC"},
        {"access_log_type": "ACCESS_LOG_TYPE_UPSTREAM_END"},
    ],
)
def test_what_goes_on(common: dict[str, Any]) -> None:
    """What is not over is left out: its end tells all of it again."""
    found = message(http(1, **common), http(2))
    records, skipped = records_of(found, found.identifier)
    assert (len(records), skipped) == (1, 1)


def test_first_rule_counts() -> None:
    """Of several rules the first one that an entry meets counts."""
    rules = (
        LogRule(TENANT, (), kind=LogKind.TCP),
        LogRule(TENANT, (), where=((LogField.STATUS, ("5*", "404")),)),
        LogRule(TENANT, (), where=((LogField.STATUS, ("2*",)), (LogField.CLUSTER, ("app",)))),
        LogRule(TENANT, ()),
    )
    assert rule_of(rules, entry(HTTP)) is rules[2]
    assert rule_of(rules, entry(TCP, tcp=True)) is rules[0]
    assert rule_of(rules[:2], entry(HTTP)) is None


def test_usage() -> None:
    """An entry's events are told apart by their meters; what is 0 makes none."""
    rule = LogRule(
        TENANT,
        (*RULE.meters, (MeterName("nothing"), LogMeasure.DURATION_MS)),
        dimensions=(("route", field(LogField.ROUTE)), ("none", field(LogField.SERVER_NAME))),
    )
    plain = http(1, duration=None, tls_properties=None)
    record = entry({key: value for key, value in plain.items() if value is not None})
    first, second = usage_of(rule, record)
    assert (first.tenant_id, first.meter, first.amount) == ("acme", REQUESTS, 1)
    assert (second.meter, second.amount) == (BYTES, 430)
    assert first.event_id == f"als-{record.identity}:requests"
    assert dict(first.dimensions) == {"route": "main"}
    assert first.context.sdk == "envoy"
    with pytest.raises(InvalidField):
        usage_of(LogRule(LogGiven(LogPlace.TAG, ("absent",)), RULE.meters), record)


class Recorder:
    """Records what it is given, but for what it was told to fail with first."""

    def __init__(self, *failures: TallygateError) -> None:
        self.failures = [*failures]
        self.tries: list[list[EventId]] = []
        self.held = asyncio.Event()
        self.held.set()

    async def record(
        self, events: Sequence[UsageRequest], expires_at: float
    ) -> list[RecordResult | TallygateError]:
        """Answer as `Admit` does."""
        await self.held.wait()
        self.tries.append([each.event_id for each in events])
        if self.failures:
            failure = self.failures.pop(0)
            return [failure, *(_kept(each) for each in events[1:])]
        return [_kept(each) for each in events]


def _kept(event: UsageRequest) -> RecordResult:
    return RecordResult(event.event_id, False, Durability.JOURNAL)


class View:
    """A catalog with a rule, after as many refusals as it was told."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals

    def current(self) -> Catalog:
        """Return it."""
        if self.refusals:
            self.refusals -= 1
            raise CatalogNotLoaded
        return Catalog(envoy=EnvoyRules(access_logs=(RULE,)))


class Told:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def log_entries(self, outcome: str, count: int) -> None:
        """Count entries."""
        self.counts[f"entries {outcome}"] += count

    def log_events(self, outcome: str, count: int) -> None:
        """Count events."""
        self.counts[f"events {outcome}"] += count

    def log_rejected(self, error: TallygateError) -> None:
        """Count a reason."""
        self.counts[error.reason] += 1


class Waits:
    """Waits no time, and says how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note it."""
        self.seconds.append(seconds)


def flow(recorder: Recorder, view: View | None = None) -> tuple[AccessLogs, Told, Waits]:
    """Return the flow over these."""
    told, waits = Told(), Waits()
    parts: Any = (recorder, view or View(), told, waits)
    return AccessLogs(*parts), told, waits


def everything(_: UsageRequest) -> bool:
    """Allow it."""
    return True


async def test_tried_until_recorded() -> None:
    """What cannot be recorded now is tried again by the same ids, ever more slowly."""
    recorder = Recorder(*[BackendUnavailable()] * 8)
    logs, told, waits = flow(recorder, View(refusals=2))
    await logs.take([entry(HTTP)], everything)
    assert recorder.tries == [recorder.tries[0]] + [recorder.tries[0][:1]] * 8
    assert waits.seconds[2:] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert told.counts == {"entries taken": 1, "events recorded": 2}


async def test_never_recorded() -> None:
    """What can never be recorded is counted by what is wrong, and keeps nothing else waiting."""
    logs, told, waits = flow(Recorder(EventTimeTooOld()))
    nobody = {**HTTP, "request": {}}
    await logs.take([entry(HTTP), entry(nobody), entry(TCP, tcp=True)], everything)
    assert told.counts == {
        "entries taken": 1,
        "entries unreadable": 2,
        "INVALID_FIELD": 2,
        "EVENT_TIME_TOO_OLD": 1,
        "events rejected": 1,
        "events recorded": 1,
    }
    assert waits.seconds == []


async def test_denied() -> None:
    """What the rules for callers do not let a sender record is left out and counted."""
    recorder = Recorder()
    logs, told, _ = flow(recorder)
    await logs.take([entry(HTTP)], lambda event: event.meter == REQUESTS)
    assert [len(each) for each in recorder.tries] == [1]
    assert told.counts["events denied"] == 1


async def test_sender_waits() -> None:
    """The next message of a stream is asked for only when the one before is recorded."""
    recorder = Recorder()
    recorder.held.clear()
    logs, told, _ = flow(recorder)
    asked: list[int] = []

    async def messages() -> AsyncIterator[Any]:
        for number in range(3):
            asked.append(number)
            yield message(http(number))

    context: Any = None
    streaming = asyncio.create_task(AccessLogServicer(logs).StreamAccessLogs(messages(), context))
    await eventually(lambda: bool(asked))
    for _ in range(10):
        await asyncio.sleep(0)
    assert asked == [0]
    recorder.held.set()
    await streaming
    assert asked == [0, 1, 2]
    assert told.counts["events recorded"] == 6


async def test_stopped_with_entries_in_hand() -> None:
    """A stream that is ended while its entries are being recorded has them recorded first."""
    recorder = Recorder()
    recorder.held.clear()
    logs, told, _ = flow(recorder)
    taking = asyncio.create_task(logs.take([entry(HTTP)], everything))
    await asyncio.sleep(0)
    taking.cancel()
    recorder.held.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert told.counts["events recorded"] == 2


async def test_redelivered(tmp_path: Path, redis_url: str) -> None:
    """What is sent again over another stream is recorded once, by a sidecar as it is shipped."""
    async with sidecar(tmp_path, redis_url, catalog()) as envoy:
        now = Timestamp()
        now.GetCurrentTime()

        async def send(numbers: Iterable[int]) -> None:
            entries = [http(number, start_time=now.ToJsonString()) for number in numbers]
            stream = envoy.stream()
            await stream.write(message(*entries))
            await stream.done_writing()
            await stream

        def outcome(name: str) -> float:
            return envoy.count("envoy_log_events_total", outcome=name)

        await send(range(20))
        assert outcome("recorded") == 20
        await send(range(10, 30))
        assert (outcome("recorded"), outcome("replayed")) == (30, 10)
