"""Whether a file is as it was: a stamp that another content or another file does not have.

Guarantees: also what is renamed over a file, or a link that leads elsewhere, changes the stamp.
Refuses to know: what files hold.
"""

from pathlib import Path
from typing import Final

Stamp = tuple[int, int, int, int]
"""When it was written, when its permissions changed, its size, and which file it is: a rename over
it may keep all but the last."""

MISSING: Final[Stamp] = (0, 0, 0, 0)
"""No file has this stamp: reading it tells what is wrong."""


def stamp_of(path: Path) -> Stamp:
    """Return the file's stamp, at the cost of one stat."""
    try:
        found = path.stat()
    except OSError:
        return MISSING
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
