"""The words of the driver: what its requests mean to the client, and what its answers say."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timezone
from typing import Any

import tallygate_client as tg

Json = dict[str, Any]


class WorkFailed(Exception):
    """The work under a reservation failed, as the case wants it to."""


class Cancelled(Exception):
    """The call was cancelled by the means of the language."""


def items_of(asked: Json) -> list[tg.Item]:
    """Read items."""
    return [
        tg.Item(each["meter"], each["amount"], each.get("dimensions") or {})
        for each in asked.get("items", ())
    ]


def options_of(asked: Json) -> Json:
    """Read the options of a call, those that it has."""
    options: Json = {}
    for name, option in (("timeout_ms", "timeout"), ("ttl_ms", "ttl")):
        if asked.get(name) is not None:
            options[option] = asked[name] / 1e3
    for name in ("operation_id", "cancel"):
        if asked.get(name) is not None:
            options[name] = asked[name]
    if asked.get("min_durability"):
        options["min_durability"] = tg.Durability[asked["min_durability"]]
    if asked.get("excess"):
        options["excess"] = tg.Excess[asked["excess"].upper()]
    if asked.get("context"):
        options["context"] = tg.Context(**asked["context"])
    return options


def usage_options(asked: Json) -> Json:
    """Read what an event has besides tenant, meter and amount."""
    names = ("event_id", "operation_id", "dimensions", "metadata")
    options: Json = {name: asked[name] for name in names if asked.get(name)}
    if asked.get("context"):
        options["context"] = tg.Context(**asked["context"])
    if asked.get("event_time_ms") is not None:
        options["event_time"] = datetime.fromtimestamp(asked["event_time_ms"] / 1e3, timezone.utc)
    return options


def decision_json(decision: tg.Decision) -> Json:
    """Write a decision."""
    retry = decision.retry_after
    return {
        "allowed": decision.allowed,
        "refused_by": decision.refused_by,
        "retry_after_ms": None if retry is None else round(retry * 1e3),
        "replayed": decision.replayed,
        "durability": decision.durability.value,
        "event_ids": list(decision.event_ids),
        "degraded": decision.degraded,
        "local": decision.local,
        "operation_id": decision.operation_id,
        "limits": limits_json(decision.limits),
    }


def limits_json(limits: tuple[tg.LimitStatus, ...]) -> list[Json]:
    """Write limits."""
    names = ("limit_id", "meter", "used", "limit", "remaining", "unlimited", "scope", "tenant_id")
    return [
        {"state": each.state.value} | {name: getattr(each, name) for name in names}
        for each in limits
    ]


def settlement_json(settled: tg.Settlement) -> Json:
    """Write how a reservation was settled."""
    return {
        "outcome": settled.outcome.value,
        "replayed": settled.replayed,
        "unrecorded": list(settled.unrecorded),
        "event_ids": list(settled.event_ids),
        "buffered": settled.buffered,
        "recorded": settled.recorded,
        "operation_id": settled.operation_id,
    }


def recorded_json(recorded: tg.Recorded) -> Json:
    """Write how an event was accepted."""
    return {
        "event_id": recorded.event_id,
        "replayed": recorded.replayed,
        "durability": recorded.durability.value,
        "degraded": recorded.degraded,
    }


def result_json(result: Any, write: Callable[[Any], Json]) -> Json:
    """Write one result of a list."""
    if isinstance(result, tg.TallygateError):
        return {"error": error_json(result)}
    return {"ok": write(result)}


def error_json(error: Exception) -> Json:
    """Write an error, by its kind."""
    if not isinstance(error, tg.TallygateError):
        return {"kind": type(error).__name__, "message": str(error)}
    retry = error.retry_after
    written: Json = {
        "kind": type(error).__name__,
        "code": error.code,
        "reason": error.reason,
        "field": error.field,
        "message": error.message,
        "operation_id": error.operation_id,
        "retry_after_ms": None if retry is None else round(retry * 1e3),
    }
    if isinstance(error, tg.QuotaExceeded):
        written["decision"] = decision_json(error.decision)
    return written


async def now(called: Any) -> Any:
    """Return what a call gave: it has been waited for, or is waited for here."""
    return await called if inspect.isawaitable(called) else called


@contextlib.asynccontextmanager
async def scope(entered: Any) -> AsyncIterator[Any]:
    """Enter either kind of context manager."""
    if hasattr(entered, "__aenter__"):
        async with entered as held:
            yield held
    else:
        with entered as held:
            yield held


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine that never waits comes to."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a synchronous operation waited")


def say(reply: Json) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
