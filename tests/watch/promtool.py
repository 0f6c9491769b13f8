"""Debian's promtool, run on files of ours.

Guarantees: a machine that lacks it is told which package has it. Refuses to know what is checked.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 100
PACKAGE: Final = "apt-get install --no-install-recommends prometheus"


def program(name: str) -> str:
    """Return where `promtool` or `prometheus` is. Raises `LookupError`."""
    found = shutil.which(name)
    if found is None:
        raise LookupError(f"no {name} on the PATH; on Debian: {PACKAGE}")
    return found


def promtool(*words: str | Path, text: str | None = None) -> str:
    """Run promtool; return what it says. Raises AssertionError with that where it objects."""
    done = subprocess.run(
        [program("promtool"), *map(str, words)],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
