"""Prometheus and its promtool, where a machine has none: Debian's package, unpacked beside Python.

Owns that folder. Guarantees that nothing is installed and no service started. Refuses to know what
they are for. `python -m tests.watch.obtain` is part of `make test`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(sys.prefix) / "prometheus"
PROGRAMS: Final = FOLDER / "usr" / "bin"
NEEDED: Final = ("promtool", "prometheus")
PACKAGE: Final = "prometheus"
TIMEOUT_S: Final = 240


def found(name: str) -> str | None:
    """Return where a program is, None where it is not."""
    return shutil.which(name) or shutil.which(name, path=str(PROGRAMS))


def main() -> None:
    """Have both programs. Where that cannot be, say so: the tests that need them fail."""
    if all(found(each) for each in NEEDED):
        return
    sys.stdout.write(f"Unpacking Debian's {PACKAGE} into {FOLDER}, as tests want promtool\n")
    if _unpacked():
        return
    # The lists of packages are only root's to bring up to date.
    if os.geteuid() != 0 or not _ran("apt-get", "-qq", "update") or not _unpacked():
        sys.stderr.write(f"It could not be had: the tests of alerts need {PACKAGE} installed\n")


def _unpacked() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if not _ran("apt-get", "-qq", "download", PACKAGE, cwd=folder):
            return False
        packages = [*Path(folder).glob("*.deb")]
        return len(packages) == 1 and _ran("dpkg-deb", "-x", str(packages[0]), str(FOLDER))


def _ran(*command: str, cwd: str | None = None) -> bool:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main()
