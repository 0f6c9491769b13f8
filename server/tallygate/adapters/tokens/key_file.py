"""Trusted keys in a file, read anew when it changes.

Guarantees: a file that was replaced counts from the next token on; one that cannot be used leaves
the keys that were read last, and is told once for each state of it. At the start it is refused.
Refuses to know: what keys are used for.
"""

from pathlib import Path

import structlog

from tallygate.adapters.tokens.key_set import (
    SET_BYTES_MAX,
    KeySet,
    KeySetInvalid,
    TokenKey,
    parse_key_set,
)
from tallygate.adapters.tokens.observer import KeyObserver

log = structlog.get_logger(__name__)

_State = tuple[int, int, int]


class FileKeys:
    """A `KeySource` over a file."""

    def __init__(self, path: Path, observer: KeyObserver) -> None:
        """Read the file. Raises `KeySetInvalid`."""
        self._path = path
        self._observer = observer
        self._seen: _State | None = None
        try:
            self._seen = self._state()
            self._keys = self._read()
        except OSError as error:
            raise KeySetInvalid(
                f"{path} cannot be read: {error.strerror}", field="token_keys_file"
            ) from None
        except KeySetInvalid as error:
            raise KeySetInvalid(f"{path}: {error.message}", field="token_keys_file") from None

    async def find(self, kid: str) -> TokenKey | None:
        """Return the key of an id."""
        try:
            state = self._state()
            if state != self._seen:
                # Noted first: a state that is broken is told once.
                self._seen = state
                self._keys = self._read()
        except OSError as error:
            if self._seen is not None:
                self._seen = None
                self._failed(error.strerror or "it cannot be read")
        except KeySetInvalid as error:
            self._failed(error.message)
        return self._keys.find(kid)

    def _failed(self, cause: str) -> None:
        log.error("token_keys_unreadable", path=str(self._path), cause=cause)
        self._observer.keys_failed()

    def _state(self) -> _State:
        # A mounted secret is replaced by a link to another file: its number changes at least.
        now = self._path.stat()
        return now.st_ino, now.st_mtime_ns, now.st_size

    def _read(self) -> KeySet:
        with self._path.open("rb") as file:
            keys = parse_key_set(file.read(SET_BYTES_MAX + 1))
        self._observer.keys_read(len(keys.keys))
        return keys
