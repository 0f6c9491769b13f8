"""Refuse protos that would break a caller of the last commit of main.

Owns the choice of the earlier commit: main, where the protos here differ from it, else the commit
before it. Guarantees that the comparison is against committed protos, taken out of git into a
scratch folder, and that it says so plainly where there is nothing to compare with. Refuses to know
the rules of compatibility: buf holds those, and `buf.yaml` names them.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("protos", "buf.yaml")
# A fresh clone of a branch has main only as the remote's; a detached build may have neither.
MAINS = ("main", "origin/main", "HEAD")
GIT_TIMEOUT_S = 60
BUF_TIMEOUT_S = 120


class GitError(Exception):
    """git refused a command; its own words follow."""


def earlier_commit(root: Path) -> str | None:
    """Choose the commit whose protos callers rely on; None where no earlier commit has any.

    Raises:
        GitError: the folder is a checkout, but git cannot read it.
    """
    main = next((name for name in MAINS if _resolve(root, name)), None)
    if main is None:
        return None
    same = _git(root, "diff", "--quiet", main, "--", *COMPARED).returncode == 0
    chosen = _resolve(root, f"{main}~1" if same else main)
    if chosen is None or not _git(root, "ls-tree", chosen, "--", *COMPARED).stdout:
        return None
    return chosen


def extract(root: Path, commit: str, target: Path) -> None:
    """Write the protos of `commit`, and buf's settings of then, into the folder `target`."""
    present = _git(root, "ls-tree", "--name-only", commit, "--", *COMPARED).stdout.split()
    paths = [name.decode() for name in present]
    archive = _git(root, "archive", "--format=tar", commit, "--", *paths)
    if archive.returncode != 0:
        raise GitError(archive.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")


def compare(root: Path, commit: str) -> int:
    """Compare the protos here with those of `commit`; return buf's exit status."""
    with tempfile.TemporaryDirectory(prefix="tallygate-breaking-") as scratch:
        extract(root, commit, Path(scratch))
        buf = Path(sys.executable).parent / "buf"
        command = [str(buf), "breaking", str(root), "--against", scratch]
        return subprocess.run(command, timeout=BUF_TIMEOUT_S, check=False).returncode


def main(root: Path = ROOT) -> int:
    """Run as a command; return its exit status."""
    if not (root / ".git").exists():
        print("Not a git checkout: there are no earlier protos to compare with.")
        return 0
    try:
        commit = earlier_commit(root)
        if commit is None:
            print("No earlier commit has protos: there is nothing to compare with yet.")
            return 0
        status = compare(root, commit)
    except GitError as error:
        print(f"git failed: {error}", file=sys.stderr)
        return 1
    if status == 0:
        print(f"The protos break no caller of {commit[:12]}.")
    else:
        print(f"These changes break callers of {commit[:12]}.", file=sys.stderr)
    return status


def _resolve(root: Path, name: str) -> str | None:
    done = _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    # Status 1 is git's quiet "no such commit"; anything else, as 128, is a checkout it cannot read.
    if done.returncode > 1:
        raise GitError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode().strip() or None


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=False)


if __name__ == "__main__":
    sys.exit(main())
