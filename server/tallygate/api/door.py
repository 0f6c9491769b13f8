"""Who comes in to control: whoever says a name, or whoever proves one by a bearer token.

Guarantees: where tokens are asked for, nobody comes in without one that is trusted now, a name that
is only said counts for nothing, and what a request says of who asks is replaced by who has proved
it. What is refused is counted by its reason.
Refuses to know: how tokens are verified, and what is recorded.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from google.protobuf.message import Message

from tallygate.api.caller import caller_of
from tallygate.api.edge import Context
from tallygate.domain.access import HTTP_RULES, RULES, allow
from tallygate.domain.caller import Caller
from tallygate.domain.errors import (
    PermissionDenied,
    TallygateError,
    TokenMissing,
    Unauthenticated,
)
from tallygate.domain.identity import LOCAL, NOBODY
from tallygate.domain.trail import actor_name
from tallygate.ports.tokens import TokenVerifier

ACTOR_KEY: Final = "x-tallygate-actor"
TOKEN_KEY: Final = "authorization"  # noqa: S105  a header's name
SCHEME: Final = "bearer"
UNNAMED: Final = "unnamed"
# What the audit log has as the role of a call to control; what a token gives follows it.
ROLE: Final = "control"
# The field of requests that says who asks, kept with what was done.
ACTOR_FIELD: Final = "actor"


class Visitor(Protocol):
    """Whoever makes a call: a name and a role for the log, and what he may ask."""

    @property
    def actor(self) -> str:
        """The name."""
        ...

    @property
    def role(self) -> str:
        """The role."""
        ...

    def allow(self, method: str, request: Message) -> None:
        """Return if he may ask for this. Raises `PermissionDenied`."""
        ...


class Door(Protocol):
    """Tells who makes a call."""

    async def enter(self, context: Context) -> Visitor:
        """Return who it is. Raises `Unauthenticated`, or `InvalidField` for what is no name."""
        ...


class AccessObserver(Protocol):
    """Hears of calls that were not let in."""

    def refused(self, reason: str) -> None:
        """A call was refused, for this reason of the table of errors."""
        ...


class OpenDoor:
    """Lets everybody in, by the name that he says, or that his certificate proves."""

    async def enter(self, context: Context) -> Visitor:
        """Return who asks. Raises `InvalidField` for what is no name."""
        identity = caller_of(context)
        if identity not in (NOBODY, LOCAL):
            # He may do all, but not under another's name.
            return _Named(identity, said=False)
        return _Named(claimed_actor(context))


class TokenDoor:
    """Lets in whoever has a token."""

    def __init__(self, verifier: TokenVerifier, observer: AccessObserver) -> None:
        self._verifier = verifier
        self._observer = observer

    async def enter(self, context: Context) -> Visitor:
        """Return whose token the call carries. Raises `Unauthenticated`."""
        try:
            caller = await self._verifier.verify(bearer_token(context))
        except Unauthenticated as error:
            self._observer.refused(error.reason)
            raise
        return Proved(caller.name, (caller,), self._observer)


class _Named:
    """Somebody who has said a name, and may do all."""

    def __init__(self, actor: str, *, said: bool = True) -> None:
        self.actor = actor
        self.role = ROLE
        self._said = said

    def allow(self, method: str, request: Message) -> None:
        """Let him; if his name was proved, have the request say so."""
        if not self._said:
            _sign(request, self.actor)


class Proved:
    """Somebody who has proved a name, and what he was given: any of it is enough for a call."""

    def __init__(self, name: str, given: Sequence[Caller], observer: AccessObserver) -> None:
        self.actor = name
        roles = sorted({role for each in given for role in each.roles})
        self.role = f"{ROLE}:{'+'.join(roles)}" if roles else ROLE
        self._given = given
        self._observer = observer

    def allow(self, method: str, request: Message) -> None:
        """Return if his roles and tenants cover it; have the request say who he is."""
        rule = RULES.get(method) or HTTP_RULES.get(method)
        tenant = tenant_at(request, rule.tenant) if rule else ""
        refused: TallygateError = PermissionDenied("nothing gives this caller a role")
        for each in self._given:
            try:
                allow(each, method, tenant)
            except TallygateError as error:
                refused = error
            else:
                _sign(request, self.actor)
                return
        self._observer.refused(refused.reason)
        raise refused


def _sign(request: Message, actor: str) -> None:
    """Have a request say who asks, whatever it said."""
    if ACTOR_FIELD in request.DESCRIPTOR.fields_by_name:
        setattr(request, ACTOR_FIELD, actor)


def claimed_actor(context: Context) -> str:
    """Return who the call says that asks. Raises `InvalidField`."""
    for key, value in context.invocation_metadata() or ():
        if key == ACTOR_KEY:
            name = value if isinstance(value, str) else value.decode("utf-8", "replace")
            return actor_name(name, ACTOR_KEY)
    return UNNAMED


def bearer_token(context: Context) -> str:
    """Return the token that a call carries. Raises `TokenMissing` and `Unauthenticated`."""
    found = [value for key, value in context.invocation_metadata() or () if key == TOKEN_KEY]
    if not found:
        raise TokenMissing
    if len(found) > 1 or not isinstance(found[0], str):
        # Which of them counts would be a matter of who reads.
        raise Unauthenticated("the call carries more than one token")
    scheme, _, token = found[0].partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise TokenMissing
    return token.strip()


def tenant_at(request: Message, path: str) -> str:
    """Return the tenant that stands at a path of a request, empty for none."""
    found: object = request
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    return found if isinstance(found, str) else ""
