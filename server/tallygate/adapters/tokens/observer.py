"""What sources of keys tell of themselves.

Guarantees: nothing that is told is secret.
Refuses to know: who listens.
"""

from typing import Protocol


class KeyObserver(Protocol):
    """Hears of trusted keys."""

    def keys_read(self, keys: int) -> None:
        """So many keys are trusted from now on."""
        ...

    def keys_failed(self) -> None:
        """Keys could not be read; the last ones are trusted further, if there are any."""
        ...


class SilentKeys:
    """Tells nobody."""

    def keys_read(self, keys: int) -> None:
        """Do nothing."""

    def keys_failed(self) -> None:
        """Do nothing."""
