"""The stubs are fresh, the protos break no caller, and both checks are able to say no."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import ROOT

COMMAND_TIMEOUT_S = 120
GEN = Path("server/tallygate/gen")
CLIENT_GEN = Path("clients/python/tallygate_client/gen")
PROTO = Path("protos/tallygate/v1/usage.proto")
FIELD = "string tenant_id = 1;"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout of the protos, their scripts and the stubs, which a test may spoil."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=unwanted)
    for stubs in (GEN, CLIENT_GEN):
        shutil.copytree(ROOT / stubs, tmp_path / stubs, ignore=unwanted)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def repository(copy: Path) -> Path:
    """The same as a git repository whose main has one commit with a README and none with protos."""
    _git(copy, "init", "--quiet", "--initial-branch=main")
    (copy / "README.md").write_text("Nothing yet.\n")
    _commit(copy, "README.md")
    return copy


def test_stubs_are_fresh() -> None:
    """The stubs in the repository are what the protos give."""
    status, output = _python(ROOT, "protos/generate.py", "--check")
    assert status == 0, output


def test_changed_proto_makes_its_stub_stale(copy: Path) -> None:
    """A proto that was edited without generating again is named by its stub."""
    _edit(copy / PROTO, FIELD, f"{FIELD}\n  string newcomer = 999;")
    status, output = _python(copy, "protos/generate.py", "--check")
    assert status == 1
    for stubs in (GEN, CLIENT_GEN):
        assert f"changed: {stubs}/v1/usage_pb2.py" in output


def test_missing_and_surplus_stubs_are_stale(copy: Path) -> None:
    """A stub that is gone, and one whose proto is gone, are both named."""
    (copy / GEN / "v1/usage_pb2.py").rename(copy / GEN / "v1/gone_pb2.py")
    status, output = _python(copy, "protos/generate.py", "--check")
    assert status == 1
    assert "missing: server/tallygate/gen/v1/usage_pb2.py" in output
    assert "surplus: server/tallygate/gen/v1/gone_pb2.py" in output


def test_refused_proto_is_reported_in_the_words_of_protoc(copy: Path) -> None:
    """A proto that does not parse fails with its file and line, and leaves the stubs alone."""
    _edit(copy / PROTO, FIELD, "strin tenant_id 1;")
    before = (copy / GEN / "v1/usage_pb2.py").read_bytes()
    status, output = _python(copy, "protos/generate.py")
    assert status == 1
    assert "tallygate/v1/usage.proto:" in output
    assert (copy / GEN / "v1/usage_pb2.py").read_bytes() == before


def test_no_earlier_protos_is_said_plainly(repository: Path) -> None:
    """Where no earlier commit has protos, the check passes and says why."""
    status, output = _python(repository, "protos/breaking.py")
    assert status == 0
    assert "nothing to compare with" in output
    _commit(repository, "protos", "buf.yaml")
    status, output = _python(repository, "protos/breaking.py")
    assert status == 0
    assert "nothing to compare with" in output


def test_breaking_edit_is_refused(repository: Path) -> None:
    """A field that changes its type is refused before it is committed, and after."""
    _commit(repository, "protos", "buf.yaml")
    _edit(repository / PROTO, FIELD, FIELD.replace("string", "int64"))
    for _ in range(2):
        status, output = _python(repository, "protos/breaking.py")
        assert status != 0
        assert 'changed type from "string" to "int64"' in output
        _commit(repository, "protos")


def test_compatible_edit_passes(repository: Path) -> None:
    """A new field breaks no caller."""
    _commit(repository, "protos", "buf.yaml")
    _edit(repository / PROTO, FIELD, f"{FIELD}\n  // New.\n  string newcomer = 999;")
    status, output = _python(repository, "protos/breaking.py")
    assert status == 0, output
    assert "break no caller" in output


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _python(root: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _commit(root: Path, *paths: str) -> None:
    _git(root, "add", *paths)
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    _git(root, *author, "commit", "--quiet", "--allow-empty", "--message=a change")


def _git(root: Path, *arguments: str) -> None:
    # The user's own settings, as signing or hooks, have no say in a scratch repository.
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(
        ["git", "-C", str(root), *arguments],
        env=environment,
        timeout=COMMAND_TIMEOUT_S,
        check=True,
    )
