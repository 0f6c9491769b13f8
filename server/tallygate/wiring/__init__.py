"""Puts processes together: the only package that names concrete adapters."""

from tallygate.wiring.process import Running, running
from tallygate.wiring.roles import Role, RoleUnmet

__all__ = ["Role", "RoleUnmet", "Running", "running"]
