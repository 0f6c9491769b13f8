"""Pods as tests need them, the sidecar of `sidecar.yaml`, and a patch as a receiver applies it.

The receiver's side of RFC 6902 is written anew here, so that a mistake of ours is not made twice.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from tallygate.adapters.sidecar_file import read_sidecar
from tallygate.domain.injection import Asked, Rules, Verdict, inject
from tallygate.domain.injection_sidecar import Sidecar
from tallygate.domain.json_patch import Json

FILE: Final = Path(__file__).parent / "sidecar.yaml"
SIDECAR: Final = read_sidecar(FILE.read_bytes())
ASKS: Final = {"tallygate.dev/inject": "true"}

# Manifests are JSON, of which tests read what they know to be there.
Manifest = dict[str, Any]


def pod(
    *, annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: Any
) -> Manifest:
    """Return a pod with one container that asks for a sidecar."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "labels": ASKS if labels is None else labels,
            "annotations": {
                f"tallygate.dev/{name}": value for name, value in (annotations or {}).items()
            },
        },
        "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec},
    }


def judged(
    manifest: Manifest,
    rules: Rules | None = None,
    *,
    sidecar: Sidecar = SIDECAR,
    namespace: str = "shop",
    by_namespace: bool = False,
) -> Verdict:
    """Return what becomes of a pod; it is left as it is."""
    before = deepcopy(manifest)
    verdict = inject(Asked(manifest, namespace, by_namespace), sidecar, rules or Rules())
    assert manifest == before, "the pod that was given is not ours to change"
    return verdict


def injected(manifest: Manifest, rules: Rules | None = None, **how: Any) -> Manifest:
    """Return a pod with its sidecar; it must get one."""
    verdict = judged(manifest, rules, **how)
    assert verdict.outcome == "injected", verdict.message
    return pod_of(verdict)


def pod_of(verdict: Verdict) -> Manifest:
    """Return a verdict's pod, for reading."""
    return verdict.pod


def of_name(listed: list[Manifest], name: str) -> Manifest:
    """Return the one member of a list that has the name."""
    (found,) = [each for each in listed if each["name"] == name]
    return found


def sidecar_in(manifest: Manifest) -> Manifest:
    """Return a pod's one sidecar."""
    spec = manifest["spec"]
    return of_name([*spec.get("initContainers", []), *spec["containers"]], "tallygate")


def variables(container: Manifest) -> dict[str, str]:
    """Return a container's variables."""
    return {each["name"]: each.get("value", "") for each in container.get("env", [])}


def patched(document: Any, operations: list[dict[str, Json]]) -> Any:
    """Apply a JSON patch, as RFC 6902 has it."""
    holder: Any = {"": deepcopy(document)}
    for operation in operations:
        *way, last = str(operation["path"]).split("/")
        target = holder
        for step in way:
            target = target[_place(target, step)]
        if not way:
            target, last = holder, ""
        place = _place(target, last)
        match operation["op"]:
            case "add" if isinstance(target, list):
                assert 0 <= place <= len(target)
                target.insert(place, deepcopy(operation["value"]))
            case "add":
                target[place] = deepcopy(operation["value"])
            case "replace":
                assert isinstance(target, list) or place in target
                target[place] = deepcopy(operation["value"])
            case "remove":
                del target[place]
            case other:
                raise AssertionError(other)
    return holder[""]


def _place(holder: Any, step: str) -> Any:
    if isinstance(holder, list):
        return len(holder) if step == "-" else int(step)
    return step.replace("~1", "/").replace("~0", "~")
