"""Generate the Go client's stubs from the protos, or check that they are fresh.

Owns `clients/go/tallygatepb/`: it rewrites that folder whole. Guarantees that the same protos give
the same bytes, as both plugins are built at pinned versions into the environment's folder. Refuses
to know what the messages mean, and to put options of one language into protos that serve all.

Run `python protos/generate_go.py` to write, with `--check` to compare: stale files are named and
the exit status is 1. Where there is no Go nothing is done and said so: who changes the protos there
leaves the Go stubs to `make test-clients`, which checks them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTOS: Final = ROOT / "protos"
STUBS: Final = ROOT / "clients" / "go" / "tallygatepb"
MODULE: Final = "github.com/tallygate/tallygate/clients/go"
PLUGINS: Final = {
    "protoc-gen-go": "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10",
    "protoc-gen-go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0",
}
SOURCES: Final = ("event", "limit", "quota", "reason", "usage")
"""The data plane: what a client beside an app calls, and no more."""

BUILD_TIMEOUT_S: Final = 600
PROTOC_TIMEOUT_S: Final = 120


class GenerationError(Exception):
    """protoc refused the protos, or a plugin could not be built; its own words follow."""


def generate(target: Path) -> None:
    """Write the stubs into the folder `target`, which is replaced.

    Raises:
        GenerationError: protoc or a plugin failed.
    """
    plugins = _plugins()
    with tempfile.TemporaryDirectory(prefix="tallygate-gen-go-") as scratch:
        _run_protoc(plugins, Path(scratch))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(scratch) / "tallygatepb", target)


def stale(present: Path = STUBS) -> list[str]:
    """Return the names of stubs that are not what the protos would give."""
    with tempfile.TemporaryDirectory(prefix="tallygate-gen-go-") as scratch:
        fresh = Path(scratch) / "tallygatepb"
        generate(fresh)
        wanted, found = _read(fresh), _read(present)
    return sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )


def main(arguments: list[str] | None = None) -> int:
    """Run as a command; return its exit status."""
    parser = argparse.ArgumentParser(description="Generate the Go client's stubs.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    if shutil.which("go") is None:
        print("There is no Go here: the Go client's stubs were left alone.")
        return 0
    try:
        if not options.check:
            generate(STUBS)
            print(f"Wrote {len(_read(STUBS))} files to {STUBS.relative_to(ROOT)}.")
            return 0
        names = stale()
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    for name in names:
        print(f"stale stub: {(STUBS / name).relative_to(ROOT)}", file=sys.stderr)
    print("Run `make gen` and commit the result." if names else "The Go stubs are fresh.")
    return 1 if names else 0


def _plugins() -> Path:
    """Return the folder of the plugins, and build there what is missing."""
    folder = Path(sys.prefix) / "go" / "-".join(_version(each) for each in PLUGINS.values())
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"}
    for name, package in PLUGINS.items():
        if (folder / name).is_file():
            continue
        _run(["go", "install", package], BUILD_TIMEOUT_S, environment)
    return folder


def _version(package: str) -> str:
    return package.rpartition("@")[2]


def _run_protoc(plugins: Path, out: Path) -> None:
    names = [f"tallygate/v1/{name}.proto" for name in SOURCES]
    placed = [f"M{name}={MODULE}/tallygatepb;tallygatepb" for name in names]
    options = [
        f"--{plugin}_opt={option}"
        for plugin in ("go", "go-grpc")
        for option in (f"module={MODULE}", *placed)
    ]
    command = [
        sys.executable,
        *("-m", "grpc_tools.protoc"),
        f"--proto_path={PROTOS}",
        f"--proto_path={resources.files('grpc_tools').joinpath('_proto')}",
        *(f"--plugin={name}={plugins / name}" for name in PLUGINS),
        *(f"--go_out={out}", f"--go-grpc_out={out}"),
        *options,
        *names,
    ]
    _run(command, PROTOC_TIMEOUT_S, dict(os.environ))


def _run(command: list[str], timeout_s: int, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=PROTOS,
        env=environment,
    )
    if done.returncode != 0:
        raise GenerationError(f"{' '.join(command[:3])} failed:\n{done.stderr.strip()}")


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.go")}


if __name__ == "__main__":
    sys.exit(main())
