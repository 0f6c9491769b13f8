"""Every verb but the roles': what a person runs, and what ends by itself.

Guarantees: a verb imports what it needs alone, and none of them before it is asked for.
Refuses to know: how verbs are done, which is in the modules beside this one.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import typer

# Of each verb, where it is. Whoever types one does not wait for what the others import.
VERBS: Final[Mapping[str, str]] = {
    "import": "imports:imports",
    "import-ratelimit-config": "import_ratelimit_config:import_ratelimit_config",
    "capture": "capture:capture",
    "credit": "credit:credit",
    "outbox": "outbox:outbox",
    "rollups": "rollups:rollups",
    "invoice": "invoice:invoice",
    "rates": "rates:rates",
    "audit": "audit:audit",
    "lineage": "lineage:lineage",
    "replay": "replay:replay",
    "retention": "retention:retention",
    "stripe": "stripe:stripe",
    "period": "period:period",
    "reset": "credit:reset",
    "simulate-plan": "simulate:simulate_plan",
    "verify": "verify:verify",
    "explain": "explain:explain",
    "export": "export:export",
    "anomalies": "anomalies:anomalies",
    "compare": "compare:compare",
    "completeness": "completeness:completeness",
    "reconcile": "reconcile:reconcile",
    "dev": "trial:dev",
    "demo": "trial:demo",
    "token": "token:token",
    "redis": "redis:redis",
    "migrate": "upkeep:migrate",
    "apply": "control:apply",
    "usage": "control:usage",
    "doctor": "upkeep:doctor",
    "check-config": "upkeep:check_config",
    "injector": "injector:injector",
}


def command(name: str) -> Any:  # noqa: ANN401 - typer has the type in a private module
    """Return a verb ready to run. Raises `KeyError` where there is none of that name."""
    module, _, attribute = VERBS[name].partition(":")
    found = getattr(import_module(f"tallygate.commands.{module}"), attribute)
    parent = typer.Typer()
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)
        # Alone it would be taken for the program itself.
        parent.callback()(_nothing)
    group: Any = typer.main.get_command(parent)
    return group.commands[name]


def _nothing() -> None:
    """Do nothing before a verb."""
