"""Manifests with their sidecars, without a webhook: what `tallygate injector render` prints.

Guarantees: documents that hold no pod stay as they are; a pod's is what the webhook would make.
Refuses to know where manifests come from.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import yaml

from tallygate.domain.errors import InvalidField
from tallygate.domain.injection import Asked, Outcome, Rules, inject
from tallygate.domain.injection_sidecar import Sidecar
from tallygate.domain.json_patch import Object
from tallygate.domain.pod_parts import object_in, text_in

# Where a kind has its pods' manifest.
TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "Pod": (),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), ("spec", "template")
    ),
    "ReplicationController": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Manifests, and what was said of them."""

    text: str
    notes: tuple[str, ...]


def rendered(text: str, sidecar: Sidecar, rules: Rules) -> Rendered:
    """Return manifests with their sidecars. Raises `InvalidField` where a pod would be refused."""
    notes: list[str] = []
    documents = [_injected(each, sidecar, rules, notes) for each in _documents(text)]
    text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)
    return Rendered(text, tuple(notes))


def _documents(text: str) -> Iterator[Object]:
    try:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict):
                yield document
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise InvalidField(f"{where}the manifests are no YAML") from None


def _injected(document: Object, sidecar: Sidecar, rules: Rules, notes: list[str]) -> Object:
    kind, name = text_in(document, "kind"), text_in(object_in(document, "metadata"), "name")
    if kind not in TEMPLATES:
        return document
    found = deepcopy(document)
    holder, last = found, ""
    for key in TEMPLATES[kind]:
        holder, last = (object_in(holder, last) if last else holder), key
    pod = object_in(holder, last) if last else found
    namespace = text_in(object_in(document, "metadata"), "namespace") or "default"
    # Whoever asks for it by a command asks for every pod that does not say no.
    verdict = inject(Asked(pod, namespace, by_namespace=True), sidecar, rules)
    if verdict.outcome is Outcome.REFUSED:
        raise InvalidField(verdict.message, field=f"{kind}/{name}")
    notes += [f"{kind}/{name}: {note}" for note in verdict.warnings]
    if not last:
        return verdict.pod
    holder[last] = verdict.pod
    return found
