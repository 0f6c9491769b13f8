"""Puts processes together: the only package that names concrete adapters."""

from tallygate.wiring.grouped import grouped, needs_group
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role, RoleUnmet

__all__ = ["Role", "RoleUnmet", "Running", "grouped", "needs_group", "running"]
