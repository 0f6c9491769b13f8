"""What a pod's annotations ask of its sidecar.

Guarantees: each annotation of ours is understood or told by name: wrong values are faults, names
that we do not know are warnings. All are told at once.
Refuses to know what comes of a wish; and which settings there are, which it is told.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from tallygate.domain.injection_sidecar import Mode

PREFIX: Final = "tallygate.dev/"
INJECT: Final = f"{PREFIX}inject"
INJECTED: Final = f"{PREFIX}injected"
SET: Final = "set."

PORT_MIN: Final = 1024
# What a socket's address holds, less some for the lock beside it.
SOCKET_PATH_MAX: Final = 100

QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|)")
UNITS: Final = {
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{unit: Fraction(1000 ** (n + 1)) for n, unit in enumerate("kMGTP")},
    **{f"{unit}i": Fraction(1024 ** (n + 1)) for n, unit in enumerate("KMGTP")},
}
DNS_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
IMAGE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
RESOURCES: Final = ("cpu-request", "cpu-limit", "memory-request", "memory-limit")
JOURNALS: Final = ("emptyDir", "ephemeral", "off")
CLAIM: Final = "claim/"
# Settings that an annotation of their own, the file or the mode decides.
OWNED: Final = {
    "grpc_address": "socket-path and grpc-port",
    "ops_address": "ops-port",
    "log_level": "log-level",
    "data_dir": "the injector's file",
    "journal": "journal-volume",
}

SettingsCheck = Callable[[Mapping[str, str]], Mapping[str, str]]
"""From settings by name to what is wrong with each of them."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked. None, and "", is what the file says."""

    image: str = ""
    pull_policy: str = ""
    resources: Mapping[str, str] = field(default_factory=dict)
    log_level: str = ""
    socket_path: str = ""
    grpc_port: int | None = None
    ops_port: int | None = None
    journal: str = ""
    journal_size: str = ""
    journal_class: str = ""
    mode: Mode | None = None
    last: bool = False
    fs_group: int | None = None
    own_group: bool = False
    skip: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """Wishes, what is wrong with them, and what is odd about them."""

    wishes: Wishes
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def wishes_of(annotations: Mapping[str, str], check: SettingsCheck) -> Read:
    """Return what a pod's annotations ask."""
    found, faults, warnings = Wishes(), [], []
    settings: dict[str, str] = {}
    for key, text in sorted(annotations.items()):
        name = key.removeprefix(PREFIX)
        if key in (name, INJECTED):
            continue
        if name.startswith(SET):
            settings[name.removeprefix(SET).replace("-", "_")] = text
        elif name in READERS:
            try:
                found = READERS[name](found, text)
            except ValueError as error:
                faults.append(f"{key}: {error}")
        else:
            warnings.append(_unknown(key, name))
    faults += _settings_faults(settings, check)
    found = replace(found, settings=settings)
    faults += _together(found)
    return Read(found, tuple(faults), tuple(warnings))


def amount(text: str) -> Fraction:
    """Return a quantity of Kubernetes as a number. Raises ValueError."""
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("must be a quantity, as in 250m or 128Mi")
    return Fraction(match[1]) * UNITS[match[2]]


def _unknown(key: str, name: str) -> str:
    if name == "inject":
        return f"{key}: is a label, not an annotation; it has no effect here"
    close = difflib.get_close_matches(name, READERS, n=1)
    hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
    return f"{key}: there is no such annotation{hint}"


def _settings_faults(settings: Mapping[str, str], check: SettingsCheck) -> list[str]:
    def spelled(name: str) -> str:
        return f"{PREFIX}{SET}{name.replace('_', '-')}"

    faults = [f"{spelled(name)}: is decided by {OWNED[name]}" for name in settings if name in OWNED]
    asked = {name: text for name, text in settings.items() if name not in OWNED}
    return faults + [f"{spelled(name)}: {fault}" for name, fault in check(asked).items()]


def _together(wishes: Wishes) -> list[str]:
    """Return what is right alone and wrong together."""
    faults = []
    for kind in ("cpu", "memory"):
        request, limit = (wishes.resources.get(f"{kind}-{end}") for end in ("request", "limit"))
        if request and limit and amount(request) > amount(limit):
            faults.append(f"{PREFIX}{kind}-request: is above {PREFIX}{kind}-limit")
    if wishes.journal_class and wishes.journal != "ephemeral":
        faults.append(f"{PREFIX}journal-storage-class: needs {PREFIX}journal-volume: ephemeral")
    if wishes.journal_size and (wishes.journal.startswith(CLAIM) or wishes.journal == "off"):
        faults.append(f"{PREFIX}journal-size: {wishes.journal} has no size to choose")
    if wishes.journal == "ephemeral" and not wishes.journal_size:
        faults.append(f"{PREFIX}journal-volume: ephemeral needs {PREFIX}journal-size")
    if wishes.grpc_port and wishes.grpc_port == wishes.ops_port:
        faults.append(f"{PREFIX}grpc-port: is the same as {PREFIX}ops-port")
    return faults


def _one_of(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ValueError(f"must be one of {', '.join(allowed)}")
    return text


def _image(wishes: Wishes, text: str) -> Wishes:
    if IMAGE.fullmatch(text) is None:
        raise ValueError("must be an image, as in registry/name:tag or registry/name@sha256:…")
    return replace(wishes, image=text)


def _resource(name: str) -> "Reader":
    def read(wishes: Wishes, text: str) -> Wishes:
        if amount(text) <= 0:
            raise ValueError("must be above 0")
        return replace(wishes, resources={**wishes.resources, name: text})

    return read


def _socket(wishes: Wishes, text: str) -> Wishes:
    first, *folders, name = text.split("/") if "/" in text else ("?", text)
    if first or {"", ".", ".."} & {*folders, name}:
        raise ValueError("must be an absolute path without .. or a slash at its end")
    if not folders:
        raise ValueError("must lie in a folder of its own, as in /run/tallygate/tallygate.sock")
    if len(text.encode()) > SOCKET_PATH_MAX:
        raise ValueError(f"is longer than {SOCKET_PATH_MAX} bytes, which a socket's path may have")
    if any(mark in text for mark in ":,$"):
        raise ValueError("must hold no colon, comma or dollar sign")
    return replace(wishes, socket_path=text)


def _port(text: str) -> int:
    # Below, the sidecar would need rights that it is not given.
    if not (text.isascii() and text.isdigit() and PORT_MIN <= int(text) < 2**16):
        raise ValueError(f"must be a port from {PORT_MIN} to 65535")
    return int(text)


def _journal(wishes: Wishes, text: str) -> Wishes:
    claim = text.removeprefix(CLAIM)
    if claim == text:
        if text not in JOURNALS:
            raise ValueError(f"must be one of {', '.join(JOURNALS)}, {CLAIM}NAME")
    elif DNS_NAME.fullmatch(claim) is None:
        raise ValueError(f"{claim!r} is no name of a claim")
    return replace(wishes, journal=text)


def _size(wishes: Wishes, text: str) -> Wishes:
    if amount(text) < 1:
        raise ValueError("must be a size, as in 1Gi")
    return replace(wishes, journal_size=text)


def _class(wishes: Wishes, text: str) -> Wishes:
    if DNS_NAME.fullmatch(text) is None:
        raise ValueError("is no name of a storage class")
    return replace(wishes, journal_class=text)


def _group(wishes: Wishes, text: str) -> Wishes:
    if text == "none":
        return replace(wishes, own_group=True)
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise ValueError("must be none or a group's number")
    return replace(wishes, fs_group=int(text))


def _skip(wishes: Wishes, text: str) -> Wishes:
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("must name containers, separated by commas")
    return replace(wishes, skip=names)


Reader = Callable[[Wishes, str], Wishes]

READERS: Final[Mapping[str, Reader]] = {
    "image": _image,
    "image-pull-policy": lambda wishes, text: replace(
        wishes, pull_policy=_one_of(text, PULL_POLICIES)
    ),
    **{name: _resource(name) for name in RESOURCES},
    "log-level": lambda wishes, text: replace(wishes, log_level=_one_of(text, LOG_LEVELS)),
    "socket-path": _socket,
    "grpc-port": lambda wishes, text: replace(wishes, grpc_port=_port(text)),
    "ops-port": lambda wishes, text: replace(wishes, ops_port=_port(text)),
    "journal-volume": _journal,
    "journal-size": _size,
    "journal-storage-class": _class,
    "mode": lambda wishes, text: replace(wishes, mode=Mode(_one_of(text, tuple(Mode)))),
    "init-order": lambda wishes, text: replace(
        wishes, last=_one_of(text, ("first", "last")) == "last"
    ),
    "fs-group": _group,
    "skip-containers": _skip,
}
