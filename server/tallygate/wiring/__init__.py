"""Puts processes together: the only package that names concrete adapters."""

from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role, RoleUnmet

__all__ = ["Role", "RoleUnmet", "Running", "running"]
