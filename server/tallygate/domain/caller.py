"""Who calls, as far as it was proved, and whose data is open to him.

Guarantees: pure; what is open to a caller is the same however he proved who he is: by a token, or
by a certificate.
Refuses to know: tokens, certificates, and methods.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import tenant_id

ANY: Final = "*"
# A team's tenants, one by one; more than these are a prefix.
TENANTS_MAX: Final = 100


class AdminRole(StrEnum):
    """What a caller may do with control: a role that a token gives."""

    READER = "reader"
    OPERATOR = "operator"
    FINANCE = "finance"
    ADMIN = "admin"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Tenants:
    """Which tenants: all, or those of these names and those whose names begin so."""

    every: bool = False
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, patterns: Iterable[str], field: str) -> Self:
        """Return the tenants of `acme`, `team-*` and `*`. Raises `InvalidField` naming `field`."""
        every, names, prefixes = False, set[str](), set[str]()
        for number, pattern in enumerate(patterns):
            if number >= TENANTS_MAX:
                raise InvalidField(f"at most {TENANTS_MAX} tenants are named", field=field)
            if pattern == ANY:
                every = True
            elif pattern.endswith(ANY):
                prefixes.add(tenant_id(pattern.removesuffix(ANY), field))
            else:
                names.add(tenant_id(pattern, field))
        return cls(every, frozenset(names), tuple(sorted(prefixes)))

    def covers(self, name: str) -> bool:
        """Say whether a tenant is among them; none is without a name, unless all are."""
        return self.every or name in self.names or name.startswith(self.prefixes)


EVERY_TENANT: Final = Tenants(every=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a name that was proved, roles, and whose data he may see."""

    name: str
    roles: frozenset[AdminRole] = frozenset()
    tenants: Tenants = EVERY_TENANT
