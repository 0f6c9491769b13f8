"""Who comes in to control by a certificate: whoever has an identity that rules give a role.

Guarantees: a name that is only said counts for nothing; each call is let in by the rules of now.
Refuses to know: how rules are written, and what roles may do.
"""

from tallygate.api.caller import Permits, caller_of
from tallygate.api.door import AccessObserver, Proved, Visitor
from tallygate.api.edge import Context
from tallygate.domain.errors import Unauthenticated
from tallygate.domain.identity import NOBODY


class PeerDoor:
    """A `Door`: lets in who has proven a SPIFFE id, and whoever may open a Unix socket."""

    def __init__(self, permits: Permits, observer: AccessObserver) -> None:
        self._permits = permits
        self._observer = observer

    async def enter(self, context: Context) -> Visitor:
        """Return whose certificate the connection has. Raises `Unauthenticated`.

        Who has no role comes in, to be refused by name: the audit log has what he tried.
        """
        identity = caller_of(context)
        if identity == NOBODY:
            error = Unauthenticated("the caller has shown no certificate with a SPIFFE id")
            self._observer.refused(error.reason)
            raise error
        return Proved(identity, self._permits.callers(identity), self._observer)
