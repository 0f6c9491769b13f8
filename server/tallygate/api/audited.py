"""Methods with the audit log around them: who asked for what, and what came of it.

Guarantees: every method that is registered here is recorded, also one that is added later, and so
is what a caller was refused who has proved his name; what is recorded of a request is bounded, has
no secrets and no more than the start of long texts.
Refuses to know: what methods do, where the log is kept, and how callers prove who they are.

Who has proved nothing where that is asked for is refused before the log, which he could fill.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from tallygate.api.door import Door, OpenDoor, Visitor
from tallygate.api.edge import Behaviour, Context, Handler, Registry, StreamBehaviour
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import tenant_id
from tallygate.domain.trail import TrailEntry
from tallygate.flow.trail import Trail

# What begins so changes nothing, and is recorded once. All else is taken for a change.
READS: Final = ("Get", "List", "Query", "Explain", "Watch", "Preview", "Check")
# A reason or a name is shorter; a catalog's text is in `catalog_version` as it is.
TEXT_MAX: Final = 200
# A row is read by people.
SUMMARY_MAX: Final = 4_000

Redact = Callable[[object], object]


class AuditedRegistry:
    """Takes the place of a registry while a servicer registers, and wraps what it brings."""

    def __init__(
        self, registry: Registry, trail: Trail, redact: Redact, door: Door | None = None
    ) -> None:
        self._registry = registry
        self._trail = trail
        self._redact = redact
        self._door: Door = door or OpenDoor()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Register the service's methods, each with the log around it."""
        self._registry.add_registered_method_handlers(
            service, {name: self._audited(name, handler) for name, handler in handlers.items()}
        )

    def _audited(self, name: str, handler: Handler) -> Handler:
        assert not handler.request_streaming, f"{name}: what is asked for must be one message"
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(name, cast(StreamBehaviour, handler.unary_stream)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(name, cast(Behaviour, handler.unary_unary)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, name: str, behaviour: Behaviour) -> Behaviour:
        around = self._trail.read if name.startswith(READS) else self._trail.change

        async def audited(request: Message, context: Context) -> object:
            visitor = await self._door.enter(context)
            async with around(self._entry(name, request, visitor)):
                visitor.allow(name, request)
                return await behaviour(request, context)

        return audited

    def _streaming(self, name: str, behaviour: StreamBehaviour) -> StreamBehaviour:
        async def audited(request: Message, context: Context) -> AsyncGenerator[Any, None]:
            visitor = await self._door.enter(context)
            # Its first message is out long before its end, so that it is recorded as changes are.
            async with self._trail.change(self._entry(name, request, visitor)):
                visitor.allow(name, request)
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        yield message

        return audited

    def _entry(self, name: str, request: Message, visitor: Visitor) -> TrailEntry:
        return TrailEntry(
            actor=visitor.actor,
            role=visitor.role,
            action=name,
            tenant_id=_subject(request),
            request=summary(request, self._redact),
            request_sha256=hashlib.sha256(
                request.SerializeToString(deterministic=True)
            ).hexdigest(),
        )


def summary(request: Message, redact: Redact) -> str:
    """Return what is recorded of a request, as JSON in ASCII."""
    try:
        fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    except (json_format.Error, ValueError):
        # A time that no calendar has: it is refused by its field, and not said in JSON.
        return json.dumps({"unspeakable": True, "bytes": request.ByteSize()})
    text = json.dumps(_shortened(redact(fields)), sort_keys=True, separators=(",", ":"))
    if len(text) > SUMMARY_MAX:
        return json.dumps({"fields": sorted(fields), "bytes": request.ByteSize()})
    return text


def _shortened(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= TEXT_MAX else f"{value[:20]}… {len(value)} characters"
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return value


def _subject(request: Message) -> str:
    """Return the tenant that a request is about, empty for none or for what is no tenant's id."""
    for holder in (request, *(each for _, each in request.ListFields())):
        # A map or a list has no such field, and neither has a number.
        found = getattr(holder, "tenant_id", "") if isinstance(holder, Message) else ""
        if isinstance(found, str) and found:
            try:
                return tenant_id(found)
            except InvalidField:
                return ""
    return ""
