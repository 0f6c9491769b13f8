"""`tallygate usage --watch`: a tenant's limits as they change, until Ctrl-C.

Guarantees: a sidecar that goes away is waited for, and said to be away; what is on show begins anew
with a snapshot when it is back.
Refuses to know: how changes are found.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

import grpc
from google.protobuf import json_format
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tallygate.commands.channel import CallFailed, Target, channel
from tallygate.commands.output import console, errors
from tallygate.commands.signals import stop_signal
from tallygate.gen.v1 import limit_pb2, quota_pb2, quota_pb2_grpc

# A sidecar restarts in about this time; a person hardly notices it.
RETRY_S: Final = 1.0
# What a service that stops makes of a stream, by its own words or by the transport's.
_GONE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_STYLES: Final = {"warning": "yellow", "exceeded": "red", "shadow_exceeded": "magenta"}

Reply = quota_pb2.WatchQuotaResponse


@dataclass(frozen=True, slots=True)
class WatchAsked:
    """Whose limits; an empty meter means those of all meters."""

    tenant: str
    meter: str = ""


class Screen(Protocol):
    """Shows what comes."""

    def show(self, reply: Reply) -> None:
        """Show where the tenant stands."""

    def away(self, reason: str) -> None:
        """Say that nothing is heard for now."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


def screen_for(tenant: str, *, as_json: bool) -> Screen:
    """Return a table in a terminal, and lines where there is none."""
    if as_json:
        return JsonLines()
    return LiveTable(tenant) if console.is_terminal else Lines(tenant)


async def watch(sidecar: Target, asked: WatchAsked, screen: Screen) -> None:
    """Show a tenant's limits until told to stop.

    Raises `CallFailed` when there is nothing to watch, or no sidecar from the beginning.
    """
    told = asyncio.ensure_future(stop_signal().wait())
    following = asyncio.ensure_future(_follow(sidecar, asked, screen))
    try:
        await asyncio.wait({told, following}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        for task in (told, following):
            task.cancel()
        await asyncio.gather(told, following, return_exceptions=True)
        screen.close()


async def _follow(sidecar: Target, asked: WatchAsked, screen: Screen) -> None:
    meters = [asked.meter] if asked.meter else []
    request = quota_pb2.WatchQuotaRequest(tenant_id=asked.tenant, meters=meters)
    seen = False
    while True:
        try:
            async with channel(sidecar) as lent:
                async for reply in quota_pb2_grpc.QuotaServiceStub(lent).WatchQuota(request):
                    seen = True
                    screen.show(reply)
        except CallFailed as error:
            cause = error.__cause__
            if not (seen and isinstance(cause, grpc.aio.AioRpcError) and cause.code() in _GONE):
                raise
            screen.away(error.message)
        await asyncio.sleep(RETRY_S)


class JsonLines:
    """One JSON object a line for each message."""

    def show(self, reply: Reply) -> None:
        """Print the message."""
        document = json_format.MessageToDict(
            reply, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
        )
        print(json.dumps({"at": _now(), **document}), flush=True)  # noqa: T201  the output

    def away(self, reason: str) -> None:
        """Say so on stderr."""
        errors.print(f"tallygate: {reason}", style="red", markup=False)

    def close(self) -> None:
        """Leave nothing behind."""


class Lines:
    """One line for each limit that has changed; all of them at first."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._plan = ""
        self._shown: dict[tuple[str, str, str], str] = {}

    def show(self, reply: Reply) -> None:
        """Print what differs from the message before."""
        start = f"{_now()} {_cause(reply)} {self._tenant}"
        if reply.plan != self._plan:
            self._plan = reply.plan
            self._print(f"{start} plan {reply.plan}")
        now = {
            (each.tenant_id, each.limit_id, each.scope): _standing(each) for each in reply.limits
        }
        for key, text in now.items():
            if self._shown.get(key) != text:
                self._print(f"{start} {_name(*key, self._tenant)} {text}")
        for key in self._shown.keys() - now.keys():
            self._print(f"{start} {_name(*key, self._tenant)} gone")
        self._shown = now

    def away(self, reason: str) -> None:
        """Say so on stderr."""
        errors.print(f"tallygate: {reason}", style="red", markup=False)

    def close(self) -> None:
        """Leave nothing behind."""

    def _print(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201  a line is read by another program, as it is


class LiveTable:
    """A table in the terminal that changes in place."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._live: Live | None = None

    def show(self, reply: Reply) -> None:
        """Draw the table anew."""
        table = Table(
            # Not as markup: names are other people's.
            title=Text(f"{self._tenant} on {reply.plan}, {_now()}; Ctrl-C ends this"),
            title_justify="left",
        )
        table.add_column("limit", overflow="fold")
        table.add_column("state")
        for column in ("used", "limit", "left"):
            table.add_column(column, justify="right")
        table.add_column("resets")
        for each in reply.limits:
            state = _state(each)
            table.add_row(
                Text(_name(each.tenant_id, each.limit_id, each.scope, self._tenant)),
                Text(state, style=_STYLES.get(state, "green")),
                f"{each.used:,}",
                "unlimited" if each.unlimited else f"{each.limit:,}",
                "" if each.unlimited else f"{each.remaining:,}",
                _resets(each),
            )
        self._draw(table)

    def away(self, reason: str) -> None:
        """Say so above the table, which stays as it last was."""
        live = self._opened()
        live.console.print(f"{_now()} {reason}", style="red", markup=False)

    def close(self) -> None:
        """Leave the last state on the terminal."""
        if self._live is not None:
            self._live.stop()

    def _draw(self, table: Table) -> None:
        self._opened().update(table, refresh=True)

    def _opened(self) -> Live:
        if self._live is None:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        return self._live


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cause(reply: Reply) -> str:
    return quota_pb2.WatchCause.Name(reply.cause).removeprefix("WATCH_CAUSE_").lower()


def _state(status: limit_pb2.LimitStatus) -> str:
    return limit_pb2.LimitState.Name(status.state).removeprefix("LIMIT_STATE_").lower()


def _standing(status: limit_pb2.LimitStatus) -> str:
    most = "unlimited" if status.unlimited else str(status.limit)
    return f"{status.used} of {most} {_state(status)}"


def _name(owner: str, limit_id: str, scope: str, tenant: str) -> str:
    """Return the limit with what tells it from another: a parent's name, a dimension's value."""
    above = f"{owner}/" if owner not in ("", tenant) else ""
    return f"{above}{limit_id}[{scope}]" if scope else f"{above}{limit_id}"


def _resets(status: limit_pb2.LimitStatus) -> str:
    if not status.HasField("resets_at"):
        return ""
    return status.resets_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
