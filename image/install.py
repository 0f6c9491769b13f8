"""Puts packages into a folder, as the image has them: `python image/install.py STEP FOLDER`.

Owns the layers' content; the Dockerfile and `make image-check` run the same steps. Guarantees that
what comes from an index has the hash of image/requirements.lock, that bytecode is compiled where it
lies, and that the bill of materials names every package. Refuses to know bases and users.

It needs pip and the standard library alone. Paths are arguments: nothing is assumed of a machine.
"""

import argparse
import compileall
import importlib.metadata
import json
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "image" / "requirements.lock"
BILL = "tallygate.cdx.json"
# Shipped by packages for their own tests and type checkers; nothing imports them at run time.
UNUSED = ("tests", "test", "testing_support")
# Folders of that name which are imported.
KEPT = ("tallygate", "fastapi")
SCRIPT = """\
#!/bin/sh
# Which interpreter runs is the image's affair; bytecode lies beside what it was made of.
exec python -P -m tallygate "$@"
"""


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("packages", "ours"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheels", type=Path, help="wheels of ours that replace locked ones")
    given = parser.parse_args()
    packages = given.folder / "packages"
    if given.step == "packages":
        _pip("--require-hashes", "--requirement", str(LOCK), into=packages)
        _slim(packages)
    else:
        for wheel in sorted(given.wheels.glob("*.whl")) if given.wheels else ():
            # Its name alone may differ from the locked one's: the sources' hash was checked.
            _pip("--no-deps", "--no-index", "--upgrade", str(wheel), into=packages)
        _ours(packages)
        _script(given.folder / "bin" / "tallygate")
        (given.folder / BILL).write_text(json.dumps(bill(packages), indent=2) + "\n")
    _compile(packages)


def _pip(*arguments: str, into: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--no-compile", "--target", str(into)]
    subprocess.run([*command, *arguments], check=True)


def _slim(packages: Path) -> None:
    """Take away what no command ever reads."""
    for path in sorted(packages.rglob("*")):
        inside = path.relative_to(packages).parts
        if path.is_dir() and path.name in UNUSED and inside[0] not in KEPT:
            shutil.rmtree(path)
        elif path.suffix in {".pyi", ".c", ".h", ".pxd", ".pyx"} and path.is_file():
            path.unlink()
    # Scripts of others, with the builder's interpreter in their first line.
    shutil.rmtree(packages / "bin", ignore_errors=True)


def _ours(packages: Path) -> None:
    """Copy our package, with the metadata by which it knows its version and its extras."""
    target = packages / "tallygate"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        ROOT / "server" / "tallygate", target, ignore=shutil.ignore_patterns("__pycache__")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = packages / f"tallygate-{project['version']}.dist-info"
    metadata.mkdir(exist_ok=True)
    lines = ["Metadata-Version: 2.1", "Name: tallygate", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {each}" for each in project["dependencies"]]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    (metadata / "INSTALLER").write_text("image/install.py\n")


def _script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _compile(packages: Path) -> None:
    """Compile what changed. By the sources' hash, as layers may not keep times."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(packages, quiet=2, invalidation_mode=unchecked)


def bill(packages: Path) -> dict[str, object]:
    """Return the bill of materials of a folder of packages, as CycloneDX has it."""
    found = sorted(
        importlib.metadata.distributions(path=[str(packages)]),
        key=lambda each: each.metadata["Name"].lower(),
    )
    locked = hashes(LOCK.read_text())
    components = [component(each, locked) for each in found]
    refs = {str(each["name"]): str(each["bom-ref"]) for each in components}
    named = "".join(str(each["purl"]) for each in components)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # Of what is in it, so that the same layers have the same bill.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, named)}",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": "tallygate", "bom-ref": "tallygate-image"}
        },
        "components": components,
        "dependencies": [dependency(each, refs) for each in found],
    }


def hashes(lock: str) -> dict[str, list[str]]:
    """Return the hashes that a lock allows, by package."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        pin = re.match(r"([A-Za-z0-9._-]+)==", line)
        if pin:
            name = canonical(pin[1])
            found.setdefault(name, [])
        found.setdefault(name, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return {name: sorted(set(each)) for name, each in found.items()}


def component(
    found: importlib.metadata.Distribution, locked: dict[str, list[str]]
) -> dict[str, object]:
    """Return one package: its name, version, licence, and the hashes that its lock allows."""
    name, version = canonical(found.metadata["Name"]), found.version
    listed: dict[str, object] = {
        "type": "library",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    headers = found.metadata
    # An expression where there is one; what packages write as text may be a whole licence.
    expression = (headers.get_all("License-Expression") or [""])[0]
    classified = [
        each.rpartition(" :: ")[2]
        for each in headers.get_all("Classifier") or []
        if each.startswith("License :: ")
    ]
    if expression:
        listed["licenses"] = [{"expression": expression}]
    elif classified:
        listed["licenses"] = [{"license": {"name": each}} for each in classified]
    listed["properties"] = [
        {"name": "locked:sha256", "value": each} for each in locked.get(name, ())
    ]
    return listed


def dependency(found: importlib.metadata.Distribution, refs: dict[str, str]) -> dict[str, object]:
    """Return which of the packages that are there a package needs."""
    needed = {
        canonical(re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0])
        for each in found.requires or []
        if "extra ==" not in each
    }
    own = canonical(found.metadata["Name"])
    return {"ref": refs[own], "dependsOn": sorted(refs[each] for each in needed & refs.keys())}


def canonical(name: str) -> str:
    """Return a package's name as indexes have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
