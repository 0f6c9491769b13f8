"""Generate the Python stubs from the protos, or check that they are fresh.

Owns `server/tallygate/gen/` and `clients/python/tallygate_client/gen/`: it rewrites both whole.
Guarantees that the same protos and the same locked tools give the same bytes, and that descriptors
keep their proto names, so that every language sees `tallygate.v1`, and both may be loaded into one
process. Refuses to know what the messages mean.

Run `python protos/generate.py` to write, with `--check` to compare: stale files are named and the
exit status is 1.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
# Of each proto package, its path below that of the protos and its folder below that of stubs.
PACKAGES = {"tallygate/v1": "v1", "tallygate/envoy/v1": "envoy"}

# protoc knows only the proto's own path; the stubs live one package deeper, beside the server.
IMPORT = re.compile(r"\btallygate\.v1\b(?=(?: import |\.\w+_pb2))")

INIT = {
    "__init__.py": '''"""Generated stubs: do not edit.

`make gen` writes everything below this package from `protos/`; `make gen-check` refuses drift.
"""
''',
    "v1/__init__.py": '''"""Generated stubs of the proto package `tallygate.v1`: do not edit."""
''',
    "envoy/__init__.py": '''"""Generated stubs of `tallygate.envoy.v1`: do not edit."""
''',
}


class Stubs(NamedTuple):
    """A folder of stubs: where it lies, the package it is, and the protos it is made of."""

    folder: Path
    package: str
    names: tuple[str, ...] = ()


SERVER = Stubs(Path("server/tallygate/gen"), "tallygate.gen.v1")
# What apps call; the control plane is none of their business.
CLIENT = Stubs(
    Path("clients/python/tallygate_client/gen"),
    "tallygate_client.gen.v1",
    ("event", "limit", "quota", "reason", "usage"),
)
EVERY = (SERVER, CLIENT)


class GenerationError(Exception):
    """protoc refused the protos; its own words follow."""


class Drift(NamedTuple):
    """How the stubs on disk differ from what the protos would give, as sorted relative paths."""

    changed: list[str]
    missing: list[str]
    surplus: list[str]

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return any(self)


def generate(target: Path, stubs: Stubs = SERVER, protos: Path = PROTOS) -> None:
    """Write stubs of the protos below `protos` into the folder `target`, which is replaced.

    Raises:
        GenerationError: protoc or a plugin failed.
    """
    with tempfile.TemporaryDirectory(prefix="tallygate-gen-") as scratch:
        out = Path(scratch)
        _run_protoc(protos, out, stubs.names)
        shutil.rmtree(target, ignore_errors=True)
        folders = [folder for package, folder in PACKAGES.items() if (out / package).is_dir()]
        for folder in folders:
            (target / folder).mkdir(parents=True)
        for name, text in INIT.items():
            if "/" not in name or name.partition("/")[0] in folders:
                (target / name).write_text(text, encoding="utf-8")
        for package, folder in PACKAGES.items():
            for made in sorted((out / package).glob("*")):
                text = IMPORT.sub(stubs.package, made.read_text(encoding="utf-8"))
                (target / folder / made.name).write_text(text, encoding="utf-8")


def compare(fresh: Path, present: Path) -> Drift:
    """Compare two folders of stubs by content."""
    wanted, found = _read(fresh), _read(present)
    return Drift(
        changed=sorted(
            name for name in wanted.keys() & found.keys() if wanted[name] != found[name]
        ),
        missing=sorted(wanted.keys() - found.keys()),
        surplus=sorted(found.keys() - wanted.keys()),
    )


def check(stubs: Stubs = SERVER, protos: Path = PROTOS) -> Drift:
    """Generate into a scratch folder and say how the stubs in place differ from it."""
    with tempfile.TemporaryDirectory(prefix="tallygate-gen-check-") as scratch:
        fresh = Path(scratch) / "gen"
        generate(fresh, stubs, protos)
        return compare(fresh, ROOT / stubs.folder)


def main(arguments: list[str] | None = None) -> int:
    """Run as a command; return its exit status."""
    parser = argparse.ArgumentParser(description="Generate the Python stubs from the protos.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            return _report({stubs: check(stubs) for stubs in EVERY})
        for stubs in EVERY:
            generate(ROOT / stubs.folder, stubs)
            print(f"Wrote {len(_read(ROOT / stubs.folder))} files to {stubs.folder}.")
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _report(drifts: dict[Stubs, Drift]) -> int:
    for stubs, drift in drifts.items():
        for label, names in zip(("changed", "missing", "surplus"), drift, strict=True):
            for name in names:
                print(f"stale stub, {label}: {stubs.folder / name}", file=sys.stderr)
    if any(drifts.values()):
        print("Run `make gen` and commit the result.", file=sys.stderr)
        return 1
    print("The stubs are fresh.")
    return 0


def _run_protoc(protos: Path, out: Path, names: tuple[str, ...]) -> None:
    found = sorted(path for package in PACKAGES for path in protos.glob(f"{package}/*.proto"))
    sources = [each for each in found if not names or each.stem in names]
    if not sources:
        raise GenerationError(f"no protos below {protos}")
    # The plugins of this very interpreter's environment, so that PATH cannot swap their version.
    scripts = Path(sys.executable).parent
    well_known = resources.files("grpc_tools").joinpath("_proto")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={protos}",
        f"--proto_path={well_known}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *(str(source.relative_to(protos)) for source in sources),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise GenerationError(f"protoc failed:\n{done.stderr.strip()}")


def _read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


if __name__ == "__main__":
    sys.exit(main())
