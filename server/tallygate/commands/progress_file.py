"""How far an import has come, on disk.

Guarantees: what it says was confirmed before it was written; a crash leaves the old file or the
new one, never a torn one.
Refuses to know: what is imported.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Everything below `offset`, in bytes, is in the stream; times are moved by `shift_us`.

    Where there is a `digest`, it is that of the lines, and `offset` is 0.
    """

    log: str
    offset: int = 0
    lines: int = 0
    shift_us: int = 0
    digest: str = ""


def read(path: Path, log: str) -> ImportProgress | None:
    """Return the progress with this log, None when there is none that can be read."""
    try:
        found = ImportProgress(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.log == log else None


def write(path: Path, progress: ImportProgress) -> None:
    """Put the progress on disk, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("w") as file:
        json.dump(asdict(progress), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
