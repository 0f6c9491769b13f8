"""The line between the process that watches and one that it has started: orders and states.

Guarantees: a message arrives whole or not at all; where either side ends, in whatever way, the
other one learns of it; secrets travel on it alone, and not in arguments or the environment.
Refuses to know: what a process does.
"""

import contextlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr

from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl
from tallygate.wiring.place import Place
from tallygate.wiring.roles import Role

MESSAGE_BYTES_MAX: Final = 64 * 1024


class WorkerFailed(TallygateError):
    """A process of the group has not started."""

    reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to be."""

    settings: Settings
    roles: frozenset[Role]
    place: Place

    def encoded(self) -> bytes:
        """Return the order as a message."""
        place = self.place
        settings = {name: _plain(value) for name, value in self.settings}
        files = {
            name: str(value.file)
            for name, value in self.settings
            if isinstance(value, SecretUrl) and value.file is not None
        }
        return encoded(
            settings=settings,
            files=files,
            roles=sorted(self.roles),
            place=[place.index, place.count, place.listens],
        )

    @classmethod
    def decoded(cls, message: bytes) -> Self:
        """Return the order of a message."""
        found = json.loads(message)
        settings = {name: value for name, value in found["settings"].items() if value is not None}
        for name, path in found["files"].items():
            settings[name] = SecretUrl(settings[name], Path(path))
        roles = frozenset(map(Role, found["roles"]))
        return cls(Settings(**settings), roles, Place(*found["place"]))


@dataclass(frozen=True, slots=True)
class Started:
    """It listens there."""

    grpc: list[str]
    control: list[str]
    envoy: list[str]


@dataclass(frozen=True, slots=True)
class State:
    """Whether it is ready, and what is amiss. `unfinished` is what its journal has to hand in."""

    ready: bool
    components: dict[str, str]
    unfinished: int


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not start."""

    message: str
    field: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """It stops: calls in flight end, and nothing more is said."""


Message = Started | State | Failed | Leaving
KINDS: Final[Mapping[str, type[Started | State | Failed | Leaving]]] = {
    "started": Started,
    "state": State,
    "failed": Failed,
    "leaving": Leaving,
}


def encoded(**fields: object) -> bytes:
    """Return fields as a message."""
    return json.dumps(fields).encode()


def encode(message: Message) -> bytes:
    """Return a message's bytes."""
    match message:
        case Started(grpc, control, envoy):
            return encoded(kind="started", grpc=grpc, control=control, envoy=envoy)
        case State(ready, components, unfinished):
            return encoded(kind="state", ready=ready, components=components, unfinished=unfinished)
        case Failed(text, field):
            return encoded(kind="failed", message=text[: MESSAGE_BYTES_MAX // 8], field=field)
        case Leaving():
            return encoded(kind="leaving")


def decode(data: bytes) -> Message:
    """Return the message of these bytes."""
    fields = json.loads(data)
    return KINDS[fields.pop("kind")](**fields)


class WorkerLine:
    """The end of the process that was started. Blocking, but for `say`."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def order(self) -> Order | None:
        """Return what to be, None where nobody says it any more."""
        with contextlib.suppress(ConnectionError):
            message = self._socket.recv(MESSAGE_BYTES_MAX)
            return Order.decoded(message) if message else None
        return None

    def wait_for_end(self) -> None:
        """Return when the other side tells us to end, or has ended itself."""
        # It is reset where the other side has died with something unread.
        with contextlib.suppress(ConnectionError):
            while self._socket.recv(MESSAGE_BYTES_MAX):
                pass

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        self._socket.close()

    def say(self, message: Message) -> None:
        """Send a message; where nobody listens, or nobody reads, it is lost."""
        try:
            self._socket.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            # The next state says it again, and an end is seen from the process itself.
            return


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path | Decimal) else value
