"""Pieces of expressions that rules and dashboards share.

Owns how a role is asked for: a process shows 0 for what it does not do, and that is no finding.
Refuses to know what is alarming.
"""

from typing import Final

from .rule import series

HERE: Final = "cluster, namespace"
"""An installation; either label may be missing."""

PROCESS: Final = "cluster, namespace, job, instance"


def of_role(expr: str, role: str) -> str:
    """Return an expression's series of those processes that have a role."""
    return f'{expr} and on ({PROCESS}) tallygate_role_info{{role="{role}"}}'


def worst(metric: str, role: str, *labels: str) -> str:
    """Return the greatest of what processes of a role show."""
    return f"max by ({', '.join((HERE, *labels))}) ({of_role(metric, role)})"


def role(name: str, values: str = "1x600") -> dict[str, str]:
    """Return the series that says what a process of a story does."""
    return series("tallygate_role_info", values, role=name)
