"""Verifies signed tokens (JWT), and reads of them who calls.

Guarantees: a token counts only with the algorithm that its key is for, for this audience, of this
issuer, and within its time; no error and no log has anything of a token but the names of claims.
Refuses to know: where keys come from, and what callers may do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt

from tallygate.adapters.tokens.key_set import ALGORITHMS, TokenKey
from tallygate.domain.caller import EVERY_TENANT, AdminRole, Caller, Tenants
from tallygate.domain.errors import InvalidField, TokenExpired, Unauthenticated
from tallygate.domain.trail import actor_name

# Of one with a hundred tenants; headers are bounded to twice that.
TOKEN_LENGTH_MAX: Final = 8 * 1024
# Roles that a provider gives for other programs count as none of ours.
ROLES_MAX: Final = 1_000
REQUIRED: Final = ("exp", "iss", "aud", "sub")


class KeySource(Protocol):
    """Where trusted keys are."""

    async def find(self, kid: str) -> TokenKey | None:
        """Return the key of an id. Raises `BackendUnavailable` where it cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """What a token must say, and where it says whose it is."""

    issuer: str
    audience: str
    leeway_s: float = 30.0
    roles_claim: str = "roles"
    tenants_claim: str = "tenants"


class JwtVerifier:
    """The `TokenVerifier` port over a source of keys."""

    def __init__(self, keys: KeySource, terms: TokenTerms) -> None:
        self._keys = keys
        self._terms = terms

    async def verify(self, token: str) -> Caller:
        """Return whose token it is."""
        if len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated(f"the token is longer than {TOKEN_LENGTH_MAX} characters")
        kid, algorithm = _header(token)
        key = await self._keys.find(kid)
        if key is None:
            raise Unauthenticated("the token is of no key that is trusted here")
        if key.algorithm != algorithm:
            raise Unauthenticated("the token's algorithm is not that of its key")
        return self._caller(self._claims(token, key))

    def _claims(self, token: str, key: TokenKey) -> Mapping[str, Any]:
        terms = self._terms
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=terms.audience,
                issuer=terms.issuer,
                leeway=terms.leeway_s,
                options={"require": [*REQUIRED]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(_fault(error)) from None

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        terms = self._terms
        named = _texts(claims.get(terms.roles_claim, []), terms.roles_claim)
        roles = frozenset(each for each in AdminRole if each.value in named)
        tenants = EVERY_TENANT
        try:
            name = actor_name(claims["sub"], "sub")
            if terms.tenants_claim in claims:
                patterns = _texts(claims[terms.tenants_claim], terms.tenants_claim)
                tenants = Tenants.of(patterns, terms.tenants_claim)
        except InvalidField as error:
            raise Unauthenticated(f"the token's `{error.field}` {error.message}") from None
        return Caller(name, roles, tenants)


def _header(token: str) -> tuple[str, str]:
    """Return a token's key id, empty for none, and its algorithm."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, UnicodeError):
        raise Unauthenticated("the token is malformed") from None
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if algorithm not in ALGORITHMS:
        raise Unauthenticated(f"the token's algorithm must be one of {', '.join(ALGORITHMS)}")
    # What must be understood is understood by nobody here.
    if not isinstance(kid, str) or "crit" in header:
        raise Unauthenticated("the token's header is malformed")
    return kid, algorithm


def _fault(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.InvalidSignatureError():
            return "the token's signature is not of its key"
        case jwt.InvalidAudienceError():
            return "the token's `aud` is not this audience"
        case jwt.InvalidIssuerError():
            return "the token's `iss` is not the issuer that is trusted here"
        case jwt.ImmatureSignatureError():
            return "the token's time has not come"
        case jwt.MissingRequiredClaimError():
            return f"the token lacks `{error.claim}`"
        case _:
            return "the token is malformed"


def _texts(value: object, claim: str) -> frozenset[str]:
    """Return a claim that is a list of texts, or texts with spaces between."""
    if isinstance(value, str):
        value = value.split()
    if (
        not isinstance(value, list)
        or len(value) > ROLES_MAX
        or not all(isinstance(each, str) for each in value)
    ):
        raise Unauthenticated(f"the token's `{claim}` is no list of texts")
    return frozenset(value)
