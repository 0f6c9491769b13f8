"""The files that the tables become, and where they lie.

Owns their names. Guarantees that a file which is not made any more is noticed. Refuses to know what
is in them.
"""

from pathlib import Path
from typing import Final

from . import (
    alerts_delivery,
    alerts_injector,
    alerts_money,
    alerts_security,
    alerts_service,
    alerts_stores,
    alerts_usage,
    objectives,
)
from .engineering import ENGINEERING
from .executive import EXECUTIVE
from .finance import FINANCE
from .panel import Dashboard
from .rule import Alert, Group, rules_file

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = ROOT / "helm" / "tallygate" / "files"
RULES: Final = FILES / "rules"
DASHBOARDS: Final = FILES / "dashboards"

GROUPS: Final[dict[str, tuple[Group, ...]]] = {
    "usage": alerts_usage.GROUPS,
    "stores": alerts_stores.GROUPS,
    "delivery": alerts_delivery.GROUPS,
    "money": alerts_money.GROUPS,
    "service": alerts_service.GROUPS,
    "security": alerts_security.GROUPS,
    "injector": alerts_injector.GROUPS,
    "objectives": objectives.GROUPS,
}

BOARDS: Final[tuple[Dashboard, ...]] = (ENGINEERING, FINANCE, EXECUTIVE)

HEAD: Final = "# Made by `python -m tests.watch` from tests/watch/{module}.py; do not edit.\n"


def groups() -> list[Group]:
    """Return every group, in the order of the files."""
    return [group for each in GROUPS.values() for group in each]


def alerts() -> list[Alert]:
    """Return every alert."""
    return [alert for group in groups() for alert in group.alerts]


def files() -> dict[Path, str]:
    """Return what each file has to say."""
    rules = {
        RULES / f"{name}.yaml": rules_file(
            HEAD.format(module="objectives" if name == "objectives" else f"alerts_{name}"), each
        )
        for name, each in GROUPS.items()
    }
    return rules | {DASHBOARDS / f"{board.uid}.json": board.text() for board in BOARDS}


def written() -> dict[Path, str]:
    """Return what each file that is there says."""
    found = [*RULES.glob("*"), *DASHBOARDS.glob("*")]
    return {path: path.read_text() for path in sorted(found)}


def write() -> None:
    """Write every file, and take away what is not made any more."""
    wanted = files()
    for path in written().keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
