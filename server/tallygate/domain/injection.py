"""Whether a pod gets a sidecar, and the pod with it: a pure function from pod to verdict.

Guarantees: without an opt-in nothing is changed; with one the pod has exactly one sidecar or there
is a reason in words; applied to its own result it changes nothing. A pod that asks by itself and
cannot be served is refused; one of which only its namespace asks is left as it is, with a warning.
Refuses to know requests and patches.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.injection_pod import (
    Shape,
    Unfit,
    app_container,
    ports_of,
    ports_taken,
    sidecar_container,
    sidecar_volumes,
)
from tallygate.domain.injection_sidecar import GRPC_ADDRESS, UNIX, Mode, Sidecar
from tallygate.domain.injection_wishes import (
    INJECT,
    INJECTED,
    PREFIX,
    SettingsCheck,
    Wishes,
    wishes_of,
)
from tallygate.domain.json_patch import Json, Object, alike
from tallygate.domain.pod_parts import (
    as_json,
    env_of,
    is_native,
    mount_of,
    named,
    names_of,
    object_in,
    objects_in,
    text_in,
    texts_in,
)

MIRROR: Final = "kubernetes.io/config.mirror"
PERSISTENT: Final = ("persistentVolumeClaim", "ephemeral", "csi")


class Outcome(StrEnum):
    """What became of a pod."""

    INJECTED = "injected"
    COMPLETED = "completed"
    PRESENT = "present"
    NOT_ASKED = "not_asked"
    EXCLUDED = "excluded"
    DECLINED = "declined"
    REFUSED = "refused"


class HostNetwork(StrEnum):
    """What is done with pods in their node's network."""

    REFUSE = "refuse"
    SOCKET = "socket"


def no_fault(_: Mapping[str, str]) -> Mapping[str, str]:
    """Find nothing wrong with any setting."""
    return {}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the installation says of injection."""

    excluded: frozenset[str] = frozenset()
    host_network: HostNetwork = HostNetwork.REFUSE
    check: SettingsCheck = no_fault


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod, its namespace, and whether that namespace asks for sidecars."""

    pod: Object
    namespace: str
    by_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a pod, the pod as it is now, and what its owner should hear."""

    outcome: Outcome
    pod: Object = field(repr=False)
    message: str = ""
    warnings: tuple[str, ...] = ()


def inject(asked: Asked, sidecar: Sidecar, rules: Rules) -> Verdict:
    """Return what becomes of a pod. Raises `InvalidField` where it is no pod."""
    pod = asked.pod
    metadata, spec = object_in(pod, "metadata"), object_in(pod, "spec")
    label = texts_in(metadata, "labels").get(INJECT, "")
    warnings = _label_warnings(label, metadata)
    if label == "false" or (label != "true" and not asked.by_namespace):
        return Verdict(Outcome.NOT_ASKED, pod, "", warnings)
    annotations = texts_in(metadata, "annotations")
    if asked.namespace in rules.excluded or MIRROR in annotations:
        what = "mirror pods" if MIRROR in annotations else f"namespace {asked.namespace}"
        text = f"no sidecar is injected: {what} cannot have one"
        return Verdict(Outcome.EXCLUDED, pod, text, (*warnings, text))
    read = wishes_of(annotations, rules.check)
    warnings += read.warnings
    if read.faults:
        return Verdict(Outcome.REFUSED, pod, "; ".join(read.faults), warnings)
    try:
        if _sidecars(spec, sidecar.name):
            return _present(asked, sidecar, read.wishes, warnings)
        shape = _shape(spec, metadata, sidecar, read.wishes, rules)
        injected = _with_sidecar(pod, shape)
        return Verdict(Outcome.INJECTED, injected, "", (*warnings, *_notes(pod, injected, shape)))
    except InvalidField as error:
        text = f"{error.field}: {error.message}" if error.field else error.message
        return Verdict(Outcome.REFUSED, pod, text, warnings)
    except Unfit as error:
        # A namespace's label was not meant for this pod in particular.
        outcome = Outcome.REFUSED if label == "true" else Outcome.DECLINED
        told = warnings if label == "true" else (*warnings, f"no sidecar is injected: {error}")
        return Verdict(outcome, pod, str(error), told)


def _label_warnings(label: str, metadata: Object) -> tuple[str, ...]:
    if label and label not in ("true", "false"):
        return (f"label {INJECT}: {label!r} is neither true nor false; it has no effect",)
    if not label and INJECT in texts_in(metadata, "annotations"):
        return (f"{INJECT} is an annotation here; only the label of that name has an effect",)
    return ()


def _sidecars(spec: Object, name: str) -> list[Object]:
    both = [*objects_in(spec, "initContainers"), *objects_in(spec, "containers")]
    return [each for each in both if text_in(each, "name") == name]


def _present(asked: Asked, sidecar: Sidecar, wishes: Wishes, warnings: tuple[str, ...]) -> Verdict:
    """Leave a pod that has a sidecar, but for containers that came after it was injected."""
    pod = asked.pod
    metadata, spec = object_in(pod, "metadata"), object_in(pod, "spec")
    (there, *_) = _sidecars(spec, sidecar.name)
    path = next(
        (
            address.strip().removeprefix(UNIX)
            for address in env_of(there, GRPC_ADDRESS).split(",")
            if address.strip().startswith(UNIX)
        ),
        "",
    )
    if INJECTED not in texts_in(metadata, "annotations"):
        text = f"the pod has a container named {sidecar.name} already: nothing is injected"
        return Verdict(Outcome.PRESENT, pod, text, (*warnings, text))
    if not path or mount_of(there, sidecar.socket_volume) is None:
        return Verdict(Outcome.PRESENT, pod, "", warnings)
    mode = Mode.NATIVE if is_native(there) else Mode.CONTAINER
    wishes = Wishes(socket_path=path, skip=wishes.skip)
    found = deepcopy(pod)
    _reach(object_in(found, "spec"), Shape(sidecar, wishes, mode))
    outcome = Outcome.PRESENT if alike(found, pod) else Outcome.COMPLETED
    return Verdict(outcome, found, "", warnings)


def _shape(spec: Object, metadata: Object, sidecar: Sidecar, wishes: Wishes, rules: Rules) -> Shape:
    """Return how the sidecar is to be. Raises `Unfit` where the pod cannot have one."""
    if text_in(object_in(spec, "os"), "name") == "windows":
        raise Unfit("spec.os: the sidecar runs on Linux alone")
    mode = wishes.mode or sidecar.mode
    if _ends(spec, metadata) and mode is Mode.CONTAINER:
        if wishes.mode is not None:
            raise InvalidField(
                "a pod that ends needs native: beside an ordinary container it never would",
                field=f"{PREFIX}mode",
            )
        if not sidecar.native_sidecars:
            raise Unfit("a pod that ends needs native sidecars, which this cluster does not have")
        mode = Mode.NATIVE
    if mode is Mode.NATIVE and not sidecar.native_sidecars:
        raise InvalidField("this cluster has no native sidecars", field=f"{PREFIX}mode")
    if not spec.get("hostNetwork"):
        return Shape(sidecar, wishes, mode)
    if rules.host_network is HostNetwork.REFUSE:
        raise Unfit(
            "spec.hostNetwork: sidecars of such pods would take ports of the node; this"
            " installation refuses them"
        )
    return Shape(sidecar, wishes, mode, sockets_only=True)


def _ends(spec: Object, metadata: Object) -> bool:
    """Say whether the pod is to come to an end: a job's, or one that is not restarted."""
    owners = objects_in(metadata, "ownerReferences")
    jobs = any(text_in(each, "kind") == "Job" and each.get("controller") for each in owners)
    return jobs or text_in(spec, "restartPolicy") in ("Never", "OnFailure")


def _with_sidecar(pod: Object, shape: Shape) -> Object:
    """Return a copy of the pod that has the sidecar."""
    found = deepcopy(pod)
    metadata, spec = object_in(found, "metadata"), object_in(found, "spec")
    container, volumes = sidecar_container(shape), sidecar_volumes(shape)
    own = [*objects_in(spec, "containers"), *objects_in(spec, "initContainers")]
    _refuse_ports(own, container)
    taken = set(names_of(objects_in(spec, "volumes")))
    for name in names_of(volumes):
        if name in taken:
            raise Unfit(f"spec.volumes: the pod has a volume named {name}, which is the sidecar's")
    spec["volumes"] = as_json([*objects_in(spec, "volumes"), *volumes])
    if shape.mode is Mode.NATIVE:
        before = objects_in(spec, "initContainers")
        ordered = [*before, container] if shape.wishes.last else [container, *before]
        spec["initContainers"] = as_json(ordered)
    else:
        # Last, as `kubectl exec` and `logs` mean the first.
        spec["containers"] = as_json([*objects_in(spec, "containers"), container])
    _reach(spec, shape)
    _group(spec, shape)
    _pull(spec, shape)
    metadata["labels"] = _added(texts_in(metadata, "labels"), dict(shape.sidecar.labels))
    annotations = _added(texts_in(metadata, "annotations"), dict(shape.sidecar.annotations))
    metadata["annotations"] = {**annotations, INJECTED: shape.mode.value}
    found["metadata"], found["spec"] = metadata, spec
    return found


def _added(own: dict[str, str], ours: dict[str, str]) -> dict[str, Json]:
    return {**ours, **own}


def _refuse_ports(own: list[Object], container: Object) -> None:
    for port, annotation in ports_taken(container).items():
        for each in own:
            if port in ports_of(each):
                raise Unfit(
                    f"container {text_in(each, 'name')} has port {port}, which is the sidecar's:"
                    f" choose another with the annotation {annotation}"
                )


def _reach(spec: Object, shape: Shape) -> None:
    """Have the pod's own containers reach the sidecar: those that run while it does."""
    name = shape.sidecar.name
    skipped = {name, *shape.sidecar.skip_containers, *shape.wishes.skip}

    def reached(listed: list[Object], begin: int) -> list[Json]:
        return [
            app_container(each, shape)
            if place >= begin and text_in(each, "name") not in skipped
            else each
            for place, each in enumerate(listed)
        ]

    spec["containers"] = reached(objects_in(spec, "containers"), 0)
    before = objects_in(spec, "initContainers")
    if shape.mode is Mode.NATIVE:
        spec["initContainers"] = reached(before, names_of(before).index(name))


def _group(spec: Object, shape: Shape) -> None:
    """Have all containers share the group that may use the socket, where none is set."""
    wanted = shape.wishes.fs_group
    group = shape.sidecar.fs_group if wanted is None else wanted
    context = deepcopy(object_in(spec, "securityContext"))
    if group is None or shape.wishes.own_group or (wanted is None and "fsGroup" in context):
        return
    context["fsGroup"] = group
    # Else each start would walk all of the pod's volumes.
    context.setdefault("fsGroupChangePolicy", "OnRootMismatch")
    spec["securityContext"] = context


def _pull(spec: Object, shape: Shape) -> None:
    own = objects_in(spec, "imagePullSecrets")
    missing: list[Object] = [
        {"name": name} for name in shape.sidecar.pull_secrets if named(own, name) is None
    ]
    if missing:
        spec["imagePullSecrets"] = as_json([*own, *missing])


def _notes(pod: Object, injected: Object, shape: Shape) -> Iterator[str]:
    """Yield what the pod's owner should know of it."""
    before, after = object_in(pod, "spec"), object_in(injected, "spec")
    own = {*names_of(objects_in(before, "containers"))}
    own |= {*names_of(objects_in(before, "initContainers"))}
    for name in sorted(shape.wishes.skip - own):
        yield f"{PREFIX}skip-containers: the pod has no container {name}"
    group = object_in(after, "securityContext").get("fsGroup")
    if group != object_in(before, "securityContext").get("fsGroup"):
        for volume in objects_in(before, "volumes"):
            if any(kind in volume for kind in PERSISTENT):
                yield (
                    f"fsGroup {group} is set, and applies to volume {text_in(volume, 'name')} too;"
                    f" {PREFIX}fs-group: none leaves the pod without"
                )
    if shape.sockets_only and shape.wishes.ops_port is None:
        yield "spec.hostNetwork: the sidecar takes no port, and has no metrics to scrape"
