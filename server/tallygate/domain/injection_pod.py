"""The sidecar as a pod gets it, and what the pod's own containers get to reach it.

Guarantees: the pieces and the pod that are given stay as they are; what a container has set itself
is not overwritten; applied again to its own result, nothing changes.
Refuses to know whether a pod is to have a sidecar at all.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.injection_sidecar import GRPC_ADDRESS, OPS_ADDRESS, UNIX, Mode, Sidecar
from tallygate.domain.injection_wishes import CLAIM, PREFIX, SET, Wishes, amount
from tallygate.domain.json_patch import Json, Object
from tallygate.domain.pod_parts import (
    NATIVE_RESTARTS,
    as_json,
    env_of,
    mount_of,
    named,
    names_of,
    object_in,
    objects_in,
    text_in,
    with_env,
)

APP_ADDRESS: Final = "TALLYGATE_ADDRESS"
LOOPBACK: Final = "127.0.0.1"
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")
# A probe that opens a socket, which a kubelet cannot: some 30 ms of a processor each.
PROBE: Final = ("python", "-m", "tallygate.probe")
OPS_SOCKET: Final = "ops.sock"


class Unfit(Exception):
    """The pod cannot have a sidecar as it is, though its annotations are right."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a pod's sidecar is to be. `sockets_only`: it must take no port."""

    sidecar: Sidecar
    wishes: Wishes
    mode: Mode
    sockets_only: bool = False

    @property
    def socket_path(self) -> str:
        """Where the sidecar's socket lies in every container."""
        return self.wishes.socket_path or self.sidecar.socket_path

    @property
    def folder(self) -> str:
        """The folder of the socket."""
        return self.socket_path.rpartition("/")[0]


def sidecar_container(shape: Shape) -> Object:
    """Return the sidecar's container. Raises `InvalidField` naming the annotation."""
    wishes, pieces = shape.wishes, shape.sidecar
    found = deepcopy(pieces.container)
    if shape.mode is Mode.NATIVE:
        found["restartPolicy"] = NATIVE_RESTARTS
    if wishes.image:
        found["image"] = wishes.image
    if wishes.pull_policy:
        found["imagePullPolicy"] = wishes.pull_policy
    _limit(found, wishes)
    if wishes.log_level:
        found = with_env(found, "TALLYGATE_LOG_LEVEL", wishes.log_level)
    for name, value in wishes.settings.items():
        variable = f"TALLYGATE_{name.upper()}"
        if named(objects_in(found, "env"), f"{variable}_FILE") is not None:
            field = f"{PREFIX}{SET}{name.replace('_', '-')}"
            raise InvalidField("comes from a file of the injector's", field=field)
        found = with_env(found, variable, value)
    found = _at_grpc_port(found, shape)
    _move_socket(found, shape)
    found = _at_ops_port(found, shape)
    if wishes.journal == "off":
        found = with_env(found, "TALLYGATE_JOURNAL", "off")
    return found


def sidecar_volumes(shape: Shape) -> list[Object]:
    """Return the volumes that the sidecar needs. Raises `InvalidField` naming the annotation."""
    wishes, journal = shape.wishes, shape.sidecar.journal_volume
    if (wishes.journal or wishes.journal_size) and not journal:
        raise InvalidField("the injector's file names no journal", field=f"{PREFIX}journal-volume")
    found = deepcopy([*shape.sidecar.volumes])
    if not wishes.journal and not wishes.journal_size:
        return found
    place = names_of(found).index(journal)
    found[place] = {"name": journal, **_journal(wishes, found[place])}
    return found


def app_container(container: Object, shape: Shape) -> Object:
    """Return one of the pod's own containers with what it needs to reach the sidecar."""
    found = deepcopy(container)
    listed = objects_in(found, "env")
    if named(listed, APP_ADDRESS) is None:
        # First, so that the container's own variables can refer to it.
        entry: Object = {"name": APP_ADDRESS, "value": f"unix://{shape.socket_path}"}
        found["env"] = as_json([entry, *listed])
    mounts = objects_in(found, "volumeMounts")
    if named(mounts, shape.sidecar.socket_volume) is None:
        _refuse_taken(found, mounts, shape)
        # Who may connect decides the socket's own mode; nobody but the sidecar may replace it.
        mount: Object = {
            "name": shape.sidecar.socket_volume,
            "mountPath": shape.folder,
            "readOnly": True,
        }
        found["volumeMounts"] = as_json([*mounts, mount])
    return found


def ports_of(container: Object) -> set[int]:
    """Return the ports that a container says it listens on."""
    found = {each.get("containerPort") for each in objects_in(container, "ports")}
    return {port for port in found if isinstance(port, int)}


def ports_taken(container: Object) -> dict[int, str]:
    """Return the ports that a sidecar listens on, with the annotation that would move each."""
    found = {}
    for address in env_of(container, GRPC_ADDRESS).split(","):
        if not address.startswith(UNIX):
            found[_port(address)] = f"{PREFIX}grpc-port"
    ops = env_of(container, OPS_ADDRESS)
    if not ops.startswith(UNIX):
        found[_port(ops)] = f"{PREFIX}ops-port"
    found.pop(0, None)
    return found


def _port(address: str) -> int:
    digits = address.rpartition(":")[2].strip()
    return int(digits) if digits.isdigit() else 0


def _limit(container: Object, wishes: Wishes) -> None:
    """Set requests and limits. Raises `InvalidField` where one crosses one of the file's."""
    if not wishes.resources:
        return
    resources = deepcopy(object_in(container, "resources"))
    for name, value in wishes.resources.items():
        kind, _, end = name.partition("-")
        ours = "limits" if end == "limit" else "requests"
        resources[ours] = {**object_in(resources, ours), kind: value}
    for name in wishes.resources:
        kind = name.partition("-")[0]
        request, limit = (text_in(object_in(resources, e), kind) for e in ("requests", "limits"))
        if request and limit and amount(request) > amount(limit):
            raise InvalidField(
                f"the request of {request} would be above the limit of {limit}",
                field=f"{PREFIX}{name}",
            )
    container["resources"] = resources


def _at_grpc_port(container: Object, shape: Shape) -> Object:
    """Return the container with its calls on the socket, and on the port that the pod wants."""
    given = [each.strip() for each in env_of(container, GRPC_ADDRESS).split(",")]
    over_tcp = [each for each in given if not each.startswith(UNIX)]
    wanted = shape.wishes.grpc_port
    listed = over_tcp
    if wanted is not None:
        host = over_tcp[0].rpartition(":")[0] if over_tcp else LOOPBACK
        listed = [f"{host}:{wanted}"]
    elif shape.sockets_only:
        listed = []
    if listed != over_tcp:
        _replace_ports(container, {_port(each) for each in over_tcp}, wanted)
    return with_env(container, GRPC_ADDRESS, ",".join([UNIX + shape.socket_path, *listed]))


def _replace_ports(container: Object, old: set[int], wanted: int | None) -> None:
    """Have what a container says of its ports follow them; without a new one it says nothing."""
    kept: list[Object] = []
    for port in objects_in(container, "ports"):
        if port.get("containerPort") not in old:
            kept.append(port)
        elif wanted is not None:
            kept.append({**port, "containerPort": wanted})
    if "ports" in container:
        container["ports"] = as_json(kept)


def _move_socket(container: Object, shape: Shape) -> None:
    mount = mount_of(container, shape.sidecar.socket_volume)
    assert mount is not None, "the file was checked"
    for other in objects_in(container, "volumeMounts"):
        path = text_in(other, "mountPath").rstrip("/")
        if other is not mount and _overlap(path, shape.folder):
            raise InvalidField(
                f"lies where the sidecar mounts {text_in(other, 'name')}",
                field=f"{PREFIX}socket-path",
            )
    mount["mountPath"] = shape.folder


def _at_ops_port(container: Object, shape: Shape) -> Object:
    """Return the container with its ops listener where the pod wants it."""
    old = env_of(container, OPS_ADDRESS)
    wanted = shape.wishes.ops_port
    if wanted is None and not shape.sockets_only:
        return container
    if old.startswith(UNIX):
        return container
    if wanted is None:
        return _on_socket(container, _port(old), shape)
    _replace_ports(container, {_port(old)}, wanted)
    for probe in _probes(container):
        for kind in ("httpGet", "grpc", "tcpSocket"):
            target = object_in(probe, kind)
            if target.get("port") == _port(old):
                target["port"] = wanted
    return with_env(container, OPS_ADDRESS, f"{old.rpartition(':')[0]}:{wanted}")


def _on_socket(container: Object, old_port: int, shape: Shape) -> Object:
    """Return the container with its ops listener on a socket, and probes that ask there."""
    address = f"{UNIX}{shape.folder}/{OPS_SOCKET}"
    for probe in _probes(container):
        http = probe.pop("httpGet", None)
        path = text_in(http, "path") if isinstance(http, dict) else ""
        for kind in ("grpc", "tcpSocket"):
            probe.pop(kind, None)
        command: list[Json] = [*PROBE, address, path or "/livez"]
        probe["exec"] = {"command": command}
    _replace_ports(container, {old_port}, None)
    return with_env(container, OPS_ADDRESS, address)


def _probes(container: Object) -> list[Object]:
    return [probe for name in PROBES if (probe := object_in(container, name))]


def _journal(wishes: Wishes, given: Object) -> Object:
    """Return what the journal's volume is made of."""
    if wishes.journal.startswith(CLAIM):
        return {"persistentVolumeClaim": {"claimName": wishes.journal.removeprefix(CLAIM)}}
    if wishes.journal == "ephemeral":
        asked: Object = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": wishes.journal_size}},
        }
        if wishes.journal_class:
            asked["storageClassName"] = wishes.journal_class
        return {"ephemeral": {"volumeClaimTemplate": {"spec": asked}}}
    if not wishes.journal and "emptyDir" not in given:
        raise InvalidField(
            f"is for an emptyDir; say {PREFIX}journal-volume too", field=f"{PREFIX}journal-size"
        )
    folder = deepcopy(object_in(given, "emptyDir"))
    if wishes.journal_size:
        folder["sizeLimit"] = wishes.journal_size
    return {"emptyDir": folder}


def _refuse_taken(container: Object, mounts: list[Object], shape: Shape) -> None:
    for mount in mounts:
        if _overlap(text_in(mount, "mountPath").rstrip("/"), shape.folder):
            raise Unfit(
                f"container {text_in(container, 'name')} mounts {text_in(mount, 'name')} at"
                f" {text_in(mount, 'mountPath')}, where the socket would be: choose another folder"
                f" with the annotation {PREFIX}socket-path"
            )


def _overlap(taken: str, folder: str) -> bool:
    """Say whether what is mounted would hide the socket, or the socket's folder it."""
    return taken == folder or taken.startswith(f"{folder}/")
