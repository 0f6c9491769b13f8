"""Events over HTTP in every shape, and the answers to them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jsonschema
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tallygate.api.door import Door, OpenDoor, TokenDoor
from tallygate.api.events_http import OPENAPI_PATH, PATHS, EventsApi, EventsOptions, openapi
from tallygate.api.events_listener import EventsListener
from tallygate.domain.caller import AdminRole, Caller, Tenants
from tallygate.domain.errors import CatalogNotLoaded
from tallygate.domain.event_rules import EventReader
from tallygate.domain.recording import Later, Refused
from tallygate.flow.take_events import TakeEvents
from tallygate.testing.capture import FakeRecorder
from tallygate.testing.tokens import FakeTokens
from tests.events.test_rules import cloud, reader

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
DESCRIPTION: Any = json.loads(openapi())
CALLERS = {
    "sender": Caller("s", frozenset((AdminRole.SENDER,)), Tenants.of(["acme"], "tenants")),
    "reader": Caller("r", frozenset((AdminRole.READER,))),
}


def described_as(name: str) -> dict[str, Any]:
    """Return the schema of one of the description's parts."""
    return {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}


@dataclass
class Heard:
    """What an observer hears."""

    statuses: list[int] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)

    def called(self, status: int, seconds: float) -> None:
        """Hear of a call."""
        self.statuses.append(status)

    def taken(self, outcome: str, events: int) -> None:
        """Hear of events."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + events

    def refused(self, reason: str) -> None:
        """Hear of a caller who was not let in."""


@dataclass
class World:
    """A listener, and who calls it."""

    url: str
    http: aiohttp.ClientSession
    recorder: FakeRecorder
    heard: Heard
    rules: list[EventReader]

    async def post(
        self, body: Any, kind: str = "application/json", path: str = PATHS[0], **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a body; return the status and the problem, which is as it is described."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": kind, **headers}
        async with self.http.post(f"{self.url}{path}", data=sent, headers=named) as answer:
            text = await answer.text()
            described = DESCRIPTION["paths"][path]["post"]["responses"]
            assert str(answer.status) in described, text
            if answer.status == 204:
                assert not text
                return answer.status, {}
            assert answer.content_type == "application/problem+json"
            problem = json.loads(text)
            assert problem["status"] == answer.status
            schema = {
                "$ref": "#/components/schemas/Problem",
                "components": DESCRIPTION["components"],
            }
            jsonschema.validate(problem, schema)
            return answer.status, problem


@asynccontextmanager
async def world(
    door: Door | None = None, options: EventsOptions | None = None, unmatched: str = "refuse"
) -> AsyncIterator[World]:
    """Lend a listener in front of a recorder."""
    recorder, heard, rules = FakeRecorder(), Heard(), [reader(unmatched)]

    def current() -> EventReader:
        if not rules:
            raise CatalogNotLoaded
        return rules[0]

    take = TakeEvents(recorder, current)
    api = EventsApi(take, door or OpenDoor(), heard, options or EventsOptions())
    listener = EventsListener("127.0.0.1:0", api.app(), grace_s=0.1)
    await listener.start()
    async with aiohttp.ClientSession() as http:
        yield World(f"http://127.0.0.1:{listener.port}", http, recorder, heard, rules)
    await listener.stop()


def tokens(heard: Heard) -> TokenDoor:
    """Return a door that knows two callers."""
    return TokenDoor(FakeTokens(CALLERS, frozenset()), heard)


@pytest.mark.parametrize("path", PATHS)
async def test_every_shape_is_taken(path: str) -> None:
    """Structured, batched, a plain list, a plain event, and binary with headers: 204 each."""
    async with world() as sent:
        assert await sent.post(cloud(id="1"), STRUCTURED, path) == (204, {})
        assert await sent.post([cloud(id="2"), cloud(id="3")], BATCH, path) == (204, {})
        assert await sent.post([cloud(id="4")], "application/json", path) == (204, {})
        assert await sent.post(cloud(id="5"), "application/json; charset=utf-8", path) == (204, {})
        headers = {
            "ce-specversion": "1.0", "ce-id": "6", "ce-source": "app%20one", "ce-type": "prompt",
            "ce-subject": "acme", "ce-time": "2026-03-01T12:00:00Z", "ce-traceparent": "ignored",
        }  # fmt: skip
        assert await sent.post({"tokens": 9}, "application/json", path, **headers) == (204, {})
        named = [json.loads(use.metadata_json) for use in sent.recorder.known.values()]
        assert {each["ce_id"] for each in named} == {"1", "2", "3", "4", "5", "6"}
        assert {"app one"} < {each["ce_source"] for each in named}
        assert sent.heard.outcomes["recorded"] == 12


async def test_the_sdk_of_cloudevents_is_understood() -> None:
    """Its events, in both modes, are those that it says; the ids that it makes name them."""
    attributes = {"type": "prompt", "source": "https://example.com/a b", "subject": "acme"}
    async with world() as sent:
        for write in (to_binary_event, to_structured_event):
            event = CloudEvent(attributes, {"tokens": 5, "model": "größer"})
            message = write(event)
            headers = {name.lower(): value for name, value in message.headers.items()}
            kind = headers.pop("content-type", "application/octet-stream")
            assert await sent.post(message.body, kind, **headers) == (204, {})
            tokens, _ = [*sent.recorder.known.values()][-2:]
            metadata = json.loads(tokens.metadata_json)
            assert (metadata["ce_id"], metadata["ce_source"]) == (
                event.get_id(),
                attributes["source"],
            )
            assert tokens.dimensions == {"model": "größer"}
            moment = event.get_time()
            assert moment is not None
            assert tokens.time_us == round(moment.timestamp() * 1_000_000)


async def test_the_same_again_adds_nothing() -> None:
    """A sender that heard nothing sends again, and hears that all is well."""
    async with world() as sent:
        for _ in range(2):
            assert (await sent.post([cloud()]))[0] == 204
        assert len(sent.recorder.known) == 2
        assert sent.heard.outcomes == {"ignored": 0, "recorded": 2, "replayed": 2, "refused": 0}


async def test_a_list_with_a_fault_is_refused_whole() -> None:
    """Nothing is recorded, and each fault is told with its place, id, field and reason."""
    async with world() as sent:
        events = [cloud(), cloud(id="x", data={}), cloud(id="y", type="other"), 7]
        status, problem = await sent.post(events, BATCH)
        assert (status, problem["recorded"], problem["errors_count"]) == (400, 0, 3)
        assert [each["index"] for each in problem["errors"]] == [1, 2, 3]
        assert [each["reason"] for each in problem["errors"]] == [
            "INVALID_FIELD", "UNKNOWN_METER", "INVALID_FIELD",
        ]  # fmt: skip
        assert (problem["errors"][0]["id"], problem["errors"][0]["field"]) == ("x", "data.tokens")
        assert sent.recorder.calls == []


async def test_what_the_service_refuses_is_told() -> None:
    """Events that only a sidecar can judge: the others are recorded, and the answer says which."""
    async with world() as sent:
        sent.recorder.answers["calls"] = Refused("UNKNOWN_TENANT", "no such tenant", "tenant_id")
        status, problem = await sent.post([cloud()])
        assert (status, problem["reason"], problem["recorded"]) == (422, "UNKNOWN_TENANT", 1)
        assert problem["errors"][0]["index"] == 0


async def test_who_is_away_has_the_sender_come_again() -> None:
    """503 with Retry-After: without a sidecar, and without a catalog."""
    async with world() as sent:
        sent.recorder.answers["tokens"] = Later("UNAVAILABLE", "nobody answers", 2_500)
        status, problem = await sent.post([cloud()])
        assert (status, problem["retry_after_ms"], problem["recorded"]) == (503, 2_500, 1)
        sent.rules.clear()
        status, problem = await sent.post([cloud()])
        assert (status, problem["reason"]) == (503, "CATALOG_NOT_LOADED")


async def test_types_that_are_ignored_are_well() -> None:
    """204, counted, and nothing recorded."""
    async with world(unmatched="ignore") as sent:
        assert (await sent.post([cloud(type="other")]))[0] == 204
        assert sent.recorder.known == {}
        assert sent.heard.outcomes["ignored"] == 1


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", BATCH, 400),
        (b"{}", BATCH, 400),
        (b"[]", STRUCTURED, 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"x" * 200_001, "application/json", 413),
    ],
)
async def test_bad_bodies_have_an_answer(body: bytes, kind: str, status: int) -> None:
    """What is no JSON, of another kind or too large is told so, and never an error of ours."""
    async with world(options=EventsOptions(body_bytes_max=200_000)) as sent:
        assert (await sent.post(body, kind))[0] == status
        assert sent.heard.statuses == [status]


async def test_senders_prove_who_they_are() -> None:
    """401 without a token, 403 without the role or for another tenant; nothing is recorded."""
    heard = Heard()
    async with world(tokens(heard)) as sent:
        assert (await sent.post([cloud()]))[0] == 401
        for name, event, status in (
            ("reader", cloud(), 403),
            ("sender", cloud(subject="beta"), 403),
            ("sender", cloud(data={}), 400),
            ("sender", cloud(), 204),
        ):
            answer = await sent.post([event], authorization=f"Bearer {name}")
            assert answer[0] == status, (name, answer)
        assert {use.tenant_id for use in sent.recorder.known.values()} == {"acme"}


async def test_calls_and_time_are_bounded() -> None:
    """A body that does not come ends by time; one call too many is told to come back."""
    options = EventsOptions(calls_max=1, timeout_s=0.2)
    async with world(options=options) as sent:
        reading = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"["
            reading.set()
            await asyncio.Event().wait()

        headers = {"Content-Type": "application/json"}
        slow = asyncio.ensure_future(
            sent.http.post(f"{sent.url}{PATHS[0]}", data=slowly(), headers=headers)
        )
        await reading.wait()
        statuses = {(await sent.post([cloud()]))[0]}
        async with await slow as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
        assert statuses <= {204, 503}
        assert (await sent.post([cloud()]))[0] == 204


async def test_other_paths_and_methods_have_a_problem() -> None:
    """Where nothing is, and what is not taken, is told as everything else is."""
    async with world() as sent:
        for path, status, reason in (
            ("/v2/events", 404, "NOT_FOUND"),
            (PATHS[1], 405, "UNKNOWN_METHOD"),
        ):
            async with sent.http.get(f"{sent.url}{path}") as answer:
                problem = json.loads(await answer.text())
                assert (answer.status, problem["reason"]) == (status, reason)
                assert answer.content_type == "application/problem+json"
                jsonschema.validate(problem, described_as("Problem"))


async def test_the_description_is_served() -> None:
    """It names every path that is answered, and is what the file has."""
    async with world() as sent, sent.http.get(f"{sent.url}{OPENAPI_PATH}") as answer:
        assert await answer.json() == DESCRIPTION
    assert set(DESCRIPTION["paths"]) == {*PATHS, OPENAPI_PATH}
    jsonschema.Draft202012Validator.check_schema(DESCRIPTION["components"]["schemas"]["Event"])
    jsonschema.validate(cloud(), described_as("Event"))


async def test_who_says_nothing_is_not_kept() -> None:
    """A connection on which no call begins is ended; one that has had a call stays open."""
    api = EventsApi(TakeEvents(FakeRecorder(), reader), OpenDoor(), Heard(), EventsOptions())
    listener = EventsListener("127.0.0.1:0", api.app(), grace_s=0.1, silence_s=0.2)
    await listener.start()
    silent, line = await asyncio.open_connection("127.0.0.1", listener.port)
    line.write(b"POST /v1/events HTTP/1.1\r\nHost:")
    heard, spoken = await asyncio.open_connection("127.0.0.1", listener.port)
    asked = f"GET {OPENAPI_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    spoken.write(asked)
    assert await heard.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
    with contextlib.suppress(ConnectionResetError):
        assert await silent.read() == b""
    spoken.write(asked)
    await heard.readuntil(b"HTTP/1.1 200 OK\r\n")
    for each in (line, spoken):
        each.close()
        with contextlib.suppress(ConnectionError):
            await each.wait_closed()
    await listener.stop()
