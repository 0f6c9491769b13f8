"""Builds the front of the native transport with our bounds: published sources and our patches.

Guarantees: the sources are those whose hash requirements.lock has; the wheel is installed into the
environment that runs this, in place of the published one of the same version.
Refuses to know: what the patches say. Needs cargo, a C linker and some minutes.

Run as `make native`. The published wheel bounds neither messages nor connections and cannot say
when to come back: docs/decisions/0023-native-transport.md.
"""

import hashlib
import json
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
# Of a crate that it is built with: its manifest takes it from this folder of its sources.
H2_VERSION: Final = "0.4.20"
H2_PATCH: Final = ROOT / "native" / f"h2-{H2_VERSION}.patch"
H2_FOLDER: Final = Path("vendor") / "h2"
# Kept between builds: what cargo has compiled is most of the work.
BUILD: Final = ROOT / ".cache" / "native"
MATURIN: Final = "maturin==1.16.0"


def main() -> None:
    """Build what is not built yet, and install it."""
    # By what it is built from, so that it is built again only when that has changed.
    patches = PATCH.read_bytes() + H2_PATCH.read_bytes()
    kept = BUILD / hashlib.sha256(patches).hexdigest()[:16]
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
        shutil.copytree(_crate("h2", H2_VERSION, sources), sources / H2_FOLDER)
        _run("patch", "--quiet", "-p1", "--input", str(H2_PATCH), cwd=sources / H2_FOLDER)
        _run("patch", "--quiet", "-p1", "--input", str(PATCH), cwd=sources)
        # Has the lock say that h2 comes from here now, and nothing else.
        _run("cargo", "update", "--quiet", "--offline", "--package", "h2", cwd=sources)
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


def _crate(name: str, version: str, sources: Path) -> Path:
    """Return the sources of a crate that the lock names, its hash checked by cargo."""
    asked = ("cargo", "metadata", "--quiet", "--locked", "--format-version", "1")
    told = subprocess.run(asked, cwd=sources, check=True, stdout=subprocess.PIPE).stdout
    for package in json.loads(told)["packages"]:
        if (package["name"], package["version"]) == (name, version):
            return Path(package["manifest_path"]).parent
    sys.exit(f"{name} {version} is not what the sources are built with")


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
