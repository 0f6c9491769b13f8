"""The cases, as `cases.yaml` has them.

Owns which steps there are and which fields each takes. Guarantees that a step with a word that is
not known is refused before anything runs. Refuses to know how a step is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parent / "cases.yaml"

STEPS: Final[Mapping[str, frozenset[str]]] = {
    # Starts another driver, or the same one anew after a kill.
    "start": frozenset({"language"}),
    # Opens a client in a driver, with the proxy as its target: `over` is tcp, unix, tls or nowhere.
    "open": frozenset({"driver", "over", "with", "error"}),
    # Has a driver do something; `until` asks again until the answer matches, `later` goes on at
    # once and keeps the answer for `answered`.
    "do": frozenset({"driver", "client", "with", "ok", "error", "until", "later", "as"}),
    "answered": frozenset({"ok", "error", "as"}),
    # Sets faults, or forgets them.
    "faults": frozenset(),
    "clear": frozenset(),
    # The sidecar is away, comes back, or has its connections reset.
    "away": frozenset(),
    "back": frozenset(),
    "reset": frozenset(),
    # Waits until so many attempts of a method have come.
    "arrived": frozenset({"count"}),
    # What attempts there have been of a method.
    "attempts": frozenset({"count", "each", "all", "same", "ends", "gap_ms_min", "distinct"}),
    # What the ledger comes to hold of the tenant.
    "ledger": frozenset({"events", "sums", "each", "rows"}),
    # What the sidecar says of the tenant's limits, asked past the proxy.
    "quota": frozenset(),
    # Kills a driver's process.
    "kill": frozenset(),
    # Damages, counts or copies what lies in a spool folder.
    "spool": frozenset({"tear_bytes", "flip_byte", "files", "set_aside"}),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its word, what stands beside it, and its other fields."""

    word: str
    value: Any
    fields: Mapping[str, Any]
    number: int

    def shown(self) -> str:
        """Return it in a few words."""
        with_ = self.fields.get("with")
        return f"step {self.number}, {self.word}: {self.value}" + (f" {with_}" if with_ else "")


@dataclass(frozen=True, slots=True)
class Case:
    """One case. What it `says` is what every client promises."""

    name: str
    says: str
    steps: tuple[Step, ...]


def read(file: Path = FILE) -> list[Case]:
    """Return the cases in their order. Raises ValueError for what cannot be a case."""
    cases = [case_of(each) for each in yaml.safe_load(file.read_text())]
    names = [each.name for each in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"cases of one name: {sorted(twice)}")
    return cases


def case_of(document: Mapping[str, Any]) -> Case:
    """Return a case from its document. Raises ValueError for what cannot be one."""
    unknown = set(document) - {"case", "says", "steps"}
    if unknown:
        raise ValueError(f"{document.get('case')}: unknown {sorted(unknown)}")
    name = document["case"]
    steps = [_step(name, each, number) for number, each in enumerate(document["steps"], 1)]
    return Case(name, " ".join(document["says"].split()), tuple(steps))


def _step(case: str, document: Mapping[str, Any], number: int) -> Step:
    words = [word for word in document if word in STEPS]
    if not words:
        raise ValueError(f"{case}, step {number}: no step among {sorted(document)}")
    # A word may also be a field of another, which then comes first.
    word = next(iter(document))
    if word not in STEPS:
        raise ValueError(f"{case}, step {number}: begins with {word}")
    fields = {key: value for key, value in document.items() if key != word}
    unknown = set(fields) - STEPS[word]
    if unknown:
        raise ValueError(f"{case}, step {number}: {word} takes no {sorted(unknown)}")
    return Step(word, document[word], fields, number)
