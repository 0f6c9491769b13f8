"""Why a pod that asks for a sidecar has none.

Guarantees: a pod that has its sidecar, asks for none or has ended is not told of.
Refuses to know where pods are listed, and who is told.
"""

from dataclasses import dataclass
from typing import Final

from tallygate.domain.injection import Asked, Outcome, Rules, inject
from tallygate.domain.injection_sidecar import Sidecar
from tallygate.domain.pod_parts import names_of, object_in, objects_in, text_in

ENDED: Final = ("Succeeded", "Failed")
LATE: Final = "it was created before it asked, or while the injector was away; create it anew"


@dataclass(frozen=True, slots=True)
class Missed:
    """A pod that runs without the sidecar it asks for."""

    namespace: str
    pod: str
    owner: str
    reason: str


def missed(asked: Asked, sidecar: Sidecar, rules: Rules) -> Missed | None:
    """Return a pod that misses its sidecar, None where all is as it is asked for."""
    metadata, status = object_in(asked.pod, "metadata"), object_in(asked.pod, "status")
    if "deletionTimestamp" in metadata or text_in(status, "phase") in ENDED:
        return None
    verdict = inject(asked, sidecar, rules)
    match verdict.outcome:
        case Outcome.INJECTED:
            reason = LATE
        case Outcome.EXCLUDED | Outcome.DECLINED | Outcome.REFUSED:
            # Injection looks at wishes first, and a pod may have got wrong ones since.
            if _has(asked, sidecar):
                return None
            reason = verdict.message
        case _:
            return None
    return Missed(asked.namespace, text_in(metadata, "name"), _owner(asked), reason)


def _has(asked: Asked, sidecar: Sidecar) -> bool:
    spec = object_in(asked.pod, "spec")
    both = [*objects_in(spec, "initContainers"), *objects_in(spec, "containers")]
    return sidecar.name in names_of(both)


def _owner(asked: Asked) -> str:
    for each in objects_in(object_in(asked.pod, "metadata"), "ownerReferences"):
        if each.get("controller"):
            return f"{text_in(each, 'kind')}/{text_in(each, 'name')}"
    return ""
