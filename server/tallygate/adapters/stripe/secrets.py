"""A key that lies in a variable or a file, read anew when the file changes.

Guarantees: a key that was replaced is used from the next call on, without a restart; its value
reaches no log and no error.
Refuses to know: what the key opens.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tallygate.domain.errors import TallygateError


class KeyMissing(TallygateError):
    """A destination's key cannot be read."""

    reason = "INVALID_FIELD"


@dataclass(slots=True)
class Secret:
    """A secret by where it lies: the name of a variable, or a file. `path` is the catalog's."""

    path: str
    env: str = ""
    file: str = ""
    _seen: tuple[int, int, int] | None = None
    _value: str = field(default="", repr=False)

    def read(self) -> str:
        """Return the secret of now. Raises `KeyMissing`."""
        value = self._of_file() if self.file else os.environ.get(self.env, "")
        if not value:
            raise KeyMissing("the secret is empty or not set", field=self.path)
        return value

    def _of_file(self) -> str:
        try:
            # A mounted secret is replaced by a link to another file: its number changes at least.
            now = Path(self.file).stat()
            seen = (now.st_ino, now.st_mtime_ns, now.st_size)
            if seen != self._seen:
                self._value = Path(self.file).read_text().strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            raise KeyMissing("the secret's file cannot be read", field=self.path) from error
        return self._value


Keys = Callable[[], str]
