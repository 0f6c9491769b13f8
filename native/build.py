"""Builds the front of the native transport with our bounds: pygrpc-native's sources and our patch.

Guarantees: the sources are those whose hash requirements.lock has; the wheel is installed into the
environment that runs this, in place of the published one of the same version.
Refuses to know: what the patch says. Needs cargo, a C linker and some minutes.

Run as `make native`. The published wheel bounds neither messages nor connections and cannot say
when to come back: docs/decisions/0023-native-transport.md.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "0.5.0"
ROOT: Final = Path(__file__).resolve().parent.parent
PATCH: Final = ROOT / "native" / f"pygrpc-native-{VERSION}.patch"
# Kept between builds: what cargo has compiled is most of the work.
BUILD: Final = ROOT / ".cache" / "native"
MATURIN: Final = "maturin==1.16.0"


def main() -> None:
    """Build what is not built yet, and install it."""
    # By what it is built from, so that it is built again only when that has changed.
    kept = BUILD / hashlib.sha256(PATCH.read_bytes()).hexdigest()[:16]
    if not [*kept.glob("*.whl")]:
        _build(kept)
    [wheel] = kept.glob("*.whl")
    _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    print(f"Installed {wheel.relative_to(ROOT)}")


def _build(into: Path) -> None:
    """Build the wheel and keep it there."""
    for tool in ("cargo", "patch"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is needed to build the native front, and is not on PATH")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        sources = _unpacked(_fetched(Path(folder)), Path(folder))
        _run("patch", "--quiet", "-p1", "--input", str(PATCH), cwd=sources)
        wheel = _built(sources, Path(folder))
        shutil.move(wheel, into / wheel.name)


def _fetched(folder: Path) -> Path:
    """Return the published sources, their hash checked."""
    tools = folder / "tools"
    # It makes metadata of sources to be downloaded with what builds them.
    _pip("install", "--target", str(tools), MATURIN)
    _pip(
        *("download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
        *("--dest", str(folder), f"pygrpc-native=={VERSION}"),
        tools=tools,
    )
    [archive] = folder.glob("pygrpc_native-*.tar.gz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    lock = (ROOT / "requirements.lock").read_text()
    [block] = re.findall(rf"^pygrpc-native=={re.escape(VERSION)}.*(?:\n +--hash.*)+", lock, re.M)
    if f"sha256:{found}" not in block:
        sys.exit(f"the sources of pygrpc-native {VERSION} are not those of requirements.lock")
    return archive


def _unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _built(sources: Path, folder: Path) -> Path:
    """Return the wheel."""
    into = folder / "wheels"
    _run(
        *(str(folder / "tools" / "bin" / "maturin"), "build", "--release", "--locked"),
        *("--compatibility", "linux", "--target-dir", str(BUILD / "target"), "--out", str(into)),
        cwd=sources,
        tools=folder / "tools",
    )
    [wheel] = into.glob("*.whl")
    return wheel


def _pip(*arguments: str, tools: Path | None = None) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", *arguments, *quiet, cwd=ROOT, tools=tools)


def _run(*command: str, cwd: Path, tools: Path | None = None) -> None:
    environment = {**os.environ}
    if tools is not None:
        environment["PYTHONPATH"] = str(tools)
        environment["PATH"] = f"{tools / 'bin'}:{environment['PATH']}"
    subprocess.run(command, cwd=cwd, env=environment, check=True)


if __name__ == "__main__":
    main()
