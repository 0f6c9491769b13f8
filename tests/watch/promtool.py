"""Debian's promtool, run on files of ours.

Guarantees: a machine that lacks it is told how to have it. Refuses to know what is checked.
"""

import subprocess
from pathlib import Path
from typing import Final

from .obtain import found

TIMEOUT_S: Final = 100
OBTAIN: Final = "`python -m tests.watch.obtain` unpacks Debian's, as `make test` does"


def program(name: str) -> str:
    """Return where `promtool` or `prometheus` is. Raises `LookupError`."""
    path = found(name)
    if path is None:
        raise LookupError(f"no {name}: {OBTAIN}")
    return path


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
