"""Who calls, and what he is allowed: SPIFFE ids, patterns of them, and the rules that name them.

Guarantees: what no rule allows is not allowed; a pattern's `*` stands for one whole segment of a
path, and never for a trust domain. Rules only add to each other: their order means nothing.
Refuses to know: how a caller has proven who he is, and where rules are written.

The form of an id is that of the SPIFFE standard, "SPIFFE-ID", section 2.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.caller import AdminRole, Caller, Tenants
from tallygate.domain.errors import Fault, TallygateError

SCHEME: Final = "spiffe://"
LOCAL: Final = "unix"
"""Whoever could open the Unix socket: the file's permissions are the proof."""
NOBODY: Final = ""
"""A caller who has proven nothing."""
ANY: Final = "*"
"""Every name; asked for, it needs leave for every name."""
NO_METER: Final = ""
"""What is asked for names no meter, and needs leave for none."""

# Of the standard: no id is longer, and no trust domain is.
ID_BYTES_MAX: Final = 2048
TRUST_DOMAIN_MAX: Final = 255

# In one line; a command shows them all.
FAULTS_TOLD: Final = 5

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9._-]+")


class Service(StrEnum):
    """A service of the data plane, as rules spell it."""

    QUOTA = "quota"
    USAGE = "usage"
    ENVOY = "envoy"


class Refused(StrEnum):
    """Why a call was not allowed; the caller is told less."""

    NOBODY = "nobody"
    IDENTITY = "identity"
    SERVICE = "service"
    TENANT = "tenant"
    METER = "meter"


class IdentitiesInvalid(TallygateError):
    """The identities document has faults."""

    reason = "INVALID_FIELD"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        lines = "; ".join(
            f"line {each.line}: {each.path}: {each.message}" for each in faults[:FAULTS_TOLD]
        )
        super().__init__(f"the identities document has {len(faults)} fault(s): {lines}")
        self.faults = faults


def pattern_fault(text: str) -> str | None:
    """Return what is wrong with a pattern of SPIFFE ids, None for a good one."""
    if text == LOCAL:
        return None
    if not text.startswith(SCHEME):
        return f"must be {LOCAL!r} or begin with {SCHEME}"
    if len(text) > ID_BYTES_MAX:
        return f"is longer than {ID_BYTES_MAX} characters"
    domain, *segments = text.removeprefix(SCHEME).split("/")
    if ANY in domain:
        return "needs one trust domain: * stands for a segment of the path"
    if not _TRUST_DOMAIN.fullmatch(domain) or len(domain) > TRUST_DOMAIN_MAX:
        return "has no trust domain: lower-case letters, digits, dots, dashes, underscores"
    for segment in segments:
        if segment == ANY:
            continue
        if ANY in segment:
            return f"* stands for a whole segment, not for a part as in {segment!r}"
        if segment in {"", ".", ".."} or not _SEGMENT.fullmatch(segment):
            return f"{segment!r} cannot be a segment of a SPIFFE id"
    return None


@dataclass(frozen=True, slots=True)
class Names:
    """Names that are allowed: some, those that begin with a prefix, or all."""

    exact: frozenset[str]
    prefixes: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        if name == ANY:
            return "" in self.prefixes
        return name in self.exact or name.startswith(self.prefixes)

    def as_tenants(self) -> Tenants:
        """Return the same as a caller of control has it."""
        prefixes = tuple(each for each in self.prefixes if each)
        return Tenants("" in self.prefixes, self.exact, prefixes)


def names_of(texts: Iterable[str]) -> Names:
    """Return the names that these texts allow; one that ends in `*` allows what begins so."""
    every = [*texts]
    return Names(
        frozenset(each for each in every if not each.endswith(ANY)),
        tuple(each.removesuffix(ANY) for each in every if each.endswith(ANY)),
    )


EVERY: Final = names_of((ANY,))


@dataclass(frozen=True, slots=True)
class Rule:
    """What callers whose id matches may do: these services, for these tenants, these meters."""

    pattern: str
    services: frozenset[Service]
    tenants: Names
    meters: Names = EVERY
    # What he may do with control, for these tenants.
    roles: frozenset[AdminRole] = frozenset()

    def matches(self, identity: str) -> bool:
        """Say whether this rule is about the caller."""
        if ANY not in self.pattern:
            return identity == self.pattern
        wanted, given = self.pattern.split("/"), identity.split("/")
        return len(wanted) == len(given) and all(
            mine in (ANY, his) for mine, his in zip(wanted, given, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Identities:
    """Every rule."""

    rules: Sequence[Rule] = ()

    def callers(self, identity: str) -> Sequence[Caller]:
        """Return what each rule that gives a role makes of a caller of control."""
        return [
            Caller(identity, rule.roles, rule.tenants.as_tenants())
            for rule in self.rules
            if rule.roles and identity != NOBODY and rule.matches(identity)
        ]

    def refused(self, identity: str, service: Service, tenant: str, meter: str) -> Refused | None:
        """Return why that is not allowed, None where one rule allows all of it.

        `ANY` as tenant or meter asks for all of them; `NO_METER` needs leave for none.
        """
        if identity == NOBODY:
            return Refused.NOBODY
        left = [rule for rule in self.rules if rule.matches(identity)]
        if not left:
            return Refused.IDENTITY
        left = [rule for rule in left if service in rule.services]
        if not left:
            return Refused.SERVICE
        left = [rule for rule in left if tenant in rule.tenants]
        if not left:
            return Refused.TENANT
        if meter == NO_METER or any(meter in rule.meters for rule in left):
            return None
        return Refused.METER
