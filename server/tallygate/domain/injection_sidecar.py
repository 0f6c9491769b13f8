"""What is put into pods: the sidecar's container and volumes, as the injector's file gives them.

Guarantees: a `Sidecar` that exists is whole: the container mounts what it needs, the socket lies in
its volume, and no key of the file was misspelled. All faults are told at once, by path.
Refuses to know how the file is read, and pods.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.json_patch import Json, Object
from tallygate.domain.pod_parts import env_of, mount_of, names_of, object_in, objects_in, text_in

KEYS: Final = (
    *("container", "volumes", "socket", "journal", "mode", "nativeSidecars", "fsGroup"),
    *("labels", "annotations", "imagePullSecrets", "skipContainers"),
)
GRPC_ADDRESS: Final = "TALLYGATE_GRPC_ADDRESS"
OPS_ADDRESS: Final = "TALLYGATE_OPS_ADDRESS"
UNIX: Final = "unix:"


class Mode(StrEnum):
    """How the sidecar is part of a pod."""

    NATIVE = "native"
    CONTAINER = "container"


class SidecarInvalid(TallygateError):
    """The injector's file has faults."""

    reason = "INVALID_FIELD"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The pieces. What is JSON here is never changed, only copied."""

    container: Object
    volumes: tuple[Object, ...]
    socket_volume: str
    socket_path: str
    journal_volume: str = ""
    mode: Mode = Mode.NATIVE
    native_sidecars: bool = True
    fs_group: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    skip_containers: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The container's name, by which it is known in a pod."""
        return text_in(self.container, "name")


def sidecar_of(document: Json) -> Sidecar:
    """Return what a file's document says. Raises `SidecarInvalid` with every fault."""
    if not isinstance(document, dict):
        raise SidecarInvalid(["the file must hold an object"])
    faults = [*_unknown(document)]
    try:
        found = _read(document)
    except InvalidField as error:
        raise SidecarInvalid([*faults, f"{error.field}: {error.message}"]) from None
    faults += _checked(found)
    if faults:
        raise SidecarInvalid(faults)
    return found


def _unknown(document: Object) -> list[str]:
    faults = []
    for key in document:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            faults.append(f"{key}: there is no such key{hint}")
    return faults


def _read(document: Object) -> Sidecar:
    socket, journal = object_in(document, "socket"), object_in(document, "journal")
    mode = document.get("mode", Mode.NATIVE.value)
    if mode not in [each.value for each in Mode]:
        raise InvalidField("must be native or container", field="mode")
    native = document.get("nativeSidecars", True)
    if not isinstance(native, bool):
        raise InvalidField("must be true or false", field="nativeSidecars")
    group = document.get("fsGroup")
    if group is not None and (not isinstance(group, int) or isinstance(group, bool) or group < 0):
        raise InvalidField("must be a group's number", field="fsGroup")
    return Sidecar(
        container=object_in(document, "container"),
        volumes=tuple(objects_in(document, "volumes")),
        socket_volume=text_in(socket, "volume"),
        socket_path=text_in(socket, "path"),
        journal_volume=text_in(journal, "volume"),
        mode=Mode(mode),
        native_sidecars=native,
        fs_group=group,
        labels=_texts(document, "labels"),
        annotations=_texts(document, "annotations"),
        pull_secrets=tuple(names_of(objects_in(document, "imagePullSecrets"))),
        skip_containers=_names(document, "skipContainers"),
    )


def _texts(document: Object, key: str) -> dict[str, str]:
    found = {}
    for name, value in object_in(document, key).items():
        if not isinstance(value, str):
            raise InvalidField("must be a text; quote it", field=f"{key}.{name}")
        found[name] = value
    return found


def _names(document: Object, key: str) -> frozenset[str]:
    value = document.get(key)
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidField("must be a list of names", field=key)
    return frozenset(str(each) for each in value)


def _checked(sidecar: Sidecar) -> list[str]:
    """Return what does not hold together."""
    container, faults = sidecar.container, []
    faults += [
        f"container.{key}: is required" for key in ("name", "image") if not text_in(container, key)
    ]
    if "restartPolicy" in container:
        faults.append("container.restartPolicy: leave it out, the mode says it")
    names = names_of([*sidecar.volumes])
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            faults.append(f"volumes[{place}].name: must be there, and once")
    for place, mount in enumerate(objects_in(container, "volumeMounts")):
        if text_in(mount, "name") not in names:
            faults.append(
                f"container.volumeMounts[{place}].name: there is no volume {mount.get('name')}"
            )
    resources = object_in(container, "resources")
    for end in ("requests", "limits"):
        faults += [
            f"container.resources.{end}.{kind}: must be a text; quote it"
            for kind, value in object_in(resources, end).items()
            if not isinstance(value, str)
        ]
    if sidecar.journal_volume and mount_of(container, sidecar.journal_volume) is None:
        faults.append("journal.volume: the container does not mount it")
    faults += _socket(sidecar)
    ops = env_of(container, OPS_ADDRESS)
    if not ops.startswith(UNIX) and not ops.rpartition(":")[2].isdigit():
        faults.append(f"container.env: {OPS_ADDRESS} must be a plain address with a port")
    if not sidecar.native_sidecars and sidecar.mode is Mode.NATIVE:
        faults.append("mode: native needs nativeSidecars")
    return faults


def _socket(sidecar: Sidecar) -> list[str]:
    faults = []
    mount = mount_of(sidecar.container, sidecar.socket_volume)
    if mount is None:
        faults.append("socket.volume: the container does not mount it")
    elif text_in(mount, "mountPath").rstrip("/") != sidecar.socket_path.rpartition("/")[0]:
        faults.append("socket.path: must lie right in the mountPath of its volume")
    addresses = env_of(sidecar.container, GRPC_ADDRESS).split(",")
    if UNIX + sidecar.socket_path not in [each.strip() for each in addresses]:
        faults.append(f"container.env: {GRPC_ADDRESS} must hold {UNIX}{sidecar.socket_path}")
    return faults
