"""Puts processes together: the only package that names concrete adapters."""

from tallygate.adapters.log import configure_logging
from tallygate.wiring.allocator import give_back
from tallygate.wiring.collector import collect_seldom
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role, RoleUnmet

__all__ = [
    "Role",
    "RoleUnmet",
    "Running",
    "collect_seldom",
    "configure_logging",
    "give_back",
    "running",
]
