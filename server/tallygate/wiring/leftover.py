"""The folders of a group's processes, and those that a larger group has left something in.

Guarantees: process 0 has the installation's own folder, so that a single process and a group follow
each other in it; a folder is passed over only when all that lies in it now was handed in.
Refuses to know: what is in a journal.
"""

import re
from pathlib import Path
from typing import Final

from tallygate.settings import Settings
from tallygate.wiring.journaling import FOLDER

NAME: Final = re.compile(r"process-([1-9][0-9]{0,4})")
DONE: Final = "handed_in"


def folder_of(data_dir: Path, index: int) -> Path:
    """Return where a process of the group keeps its files."""
    return data_dir / f"process-{index}" if index else data_dir


def left_over(data_dir: Path, count: int) -> list[int]:
    """Return which processes beyond `count` have journals that may not be handed in."""
    if not data_dir.is_dir():
        return []
    found = (NAME.fullmatch(path.name) for path in data_dir.iterdir())
    indexes = sorted(int(match[1]) for match in found if match)
    return [each for each in indexes if each >= count and _may_hold(folder_of(data_dir, each))]


def needs_group(settings: Settings) -> bool:
    """Say whether one process is not enough: by the settings, or by what a group has left."""
    return settings.processes > 1 or bool(
        settings.journal == "on" and left_over(settings.data_dir, settings.processes)
    )


def note_done(folder: Path) -> None:
    """Note that all that lies there was handed in. Raises OSError."""
    (folder / DONE).write_text(_listed(folder))


def _may_hold(folder: Path) -> bool:
    listed = _listed(folder)
    try:
        return bool(listed) and (folder / DONE).read_text() != listed
    except OSError:
        return bool(listed)


def _listed(folder: Path) -> str:
    """Return the journal's segments with their sizes: other ones were written after the note."""
    segments = sorted((folder / FOLDER).glob("*.seg"))
    return "".join(f"{path.name} {path.stat().st_size}\n" for path in segments)
