"""Who calls, as the connection has proven it, and whether the rules allow what he asks.

Guarantees: what a call says of itself proves nothing; what no rule allows is refused before
anything is looked up, by the same words whether or not it exists. One look into a dictionary where
the same was allowed before.
Refuses to know: what methods do, and how rules are written.
"""

from collections.abc import Sequence
from typing import Final, Protocol, cast

from tallygate.api.edge import Context
from tallygate.domain.caller import Caller
from tallygate.domain.errors import PermissionDenied, Unauthenticated
from tallygate.domain.identity import LOCAL, NO_METER, NOBODY, Identities, Refused, Service

# What was allowed before: who, which service, which tenant, which meter. Some 300 bytes each.
ALLOWED_MAX: Final = 20_000
SPIFFE_KEY: Final = "peer_spiffe_id"
LOCAL_PEER: Final = "unix:"


def caller_of(context: Context) -> str:
    """Return the SPIFFE id of a call's verified certificate, `LOCAL`, or `NOBODY`."""
    if context.peer().startswith(LOCAL_PEER):
        return LOCAL
    # gRPC has the id only of a certificate that it has verified, and that has one such id.
    found = cast(Sequence[bytes], context.auth_context().get(SPIFFE_KEY, ()))
    return found[0].decode("ascii", "replace") if found else NOBODY


class CallerObserver(Protocol):
    """What hears of refusals."""

    def caller_refused(self, identity: str, service: str, why: Refused) -> None:
        """A call, or an item of a list, was refused."""


class Permits:
    """Lets callers in by rules that can be replaced at any time."""

    def __init__(self, rules: Identities, observer: CallerObserver) -> None:
        self._rules = rules
        self._observer = observer
        self._allowed: set[tuple[str, Service, str, str]] = set()
        # Counts the rules that there were: whoever was let in before looks again when it differs.
        self.version = 1

    def replace(self, rules: Identities) -> None:
        """Decide by these rules from now on."""
        self._rules = rules
        self._allowed = set()
        self.version += 1

    def callers(self, identity: str) -> Sequence[Caller]:
        """Return what the rules give a caller of control, rule by rule; empty for nothing."""
        return self._rules.callers(identity)

    def check(
        self, caller: str, service: Service, tenant: str, meters: Sequence[tuple[str, str]]
    ) -> None:
        """Return where all of it is allowed; each meter comes with its field.

        Raises `PermissionDenied` and `Unauthenticated`, naming the field.
        """
        # No meters ask for the tenant all the same, and not for nothing.
        for meter, field in meters or ((NO_METER, "tenant_id"),):
            asked = (caller, service, tenant, meter)
            if asked in self._allowed:
                continue
            why = self._rules.refused(*asked)
            if why is not None:
                self._observer.caller_refused(caller, service.value, why)
                raise _refusal(why, field)
            if len(self._allowed) >= ALLOWED_MAX:
                self._allowed.clear()
            self._allowed.add(asked)


def _refusal(why: Refused, field: str) -> PermissionDenied | Unauthenticated:
    match why:
        case Refused.NOBODY:
            return Unauthenticated("the caller has shown no certificate with a SPIFFE id")
        case Refused.IDENTITY | Refused.SERVICE:
            return PermissionDenied("no rule lets this caller ask for this")
        case Refused.TENANT:
            return PermissionDenied(field="tenant_id")
        case Refused.METER:
            return PermissionDenied(field=field)
