"""A file, or a certificate and its key, that somebody else renews while we run.

Guarantees: what is read was read whole and within a bound; it is handed on when a file is another
than before by its stamp, and only then. A pair's files may change one after the other: a pair that
does not fit yet is told by whoever takes it, and is read again.
Refuses to know: what is in a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tallygate.adapters.file_stamp import Stamp, stamp_of
from tallygate.domain.errors import InvalidField

# A chain of certificates has some 10 KB, a pod's pieces the same.
FILE_BYTES_MAX: Final = 1024 * 1024


class ChangingFiles:
    """Reads files whenever any of them is another than when they were read last."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._read: tuple[Stamp, ...] = ()
        self._taken: tuple[Stamp, ...] = ()

    def read(self) -> tuple[bytes, ...] | None:
        """Return what they hold, None where none was written since. Raises `InvalidField`."""
        # Before the contents: what is written meanwhile is found next time.
        stamps = tuple(stamp_of(path) for path in self._paths)
        if stamps == self._taken:
            return None
        found = tuple(_contents(path) for path in self._paths)
        self._read = stamps
        return found

    def taken(self) -> None:
        """Note that what was read last is in use: it is not handed on again."""
        self._taken = self._read


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            found = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidField(f"cannot be read: {error.strerror}", field=str(path)) from error
    if len(found) > FILE_BYTES_MAX:
        raise InvalidField(f"is larger than {FILE_BYTES_MAX} bytes", field=str(path))
    return found
