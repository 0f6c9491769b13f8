"""What the image is made of is locked, listed and linted; its probe asks as a kubelet would."""

import json
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from image import install
from tallygate.probe import main as probe
from tests.e2e.forked import Command, run

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def test_the_dockerfile_is_clean() -> None:
    """Hadolint finds nothing, not even a hint."""
    hadolint = Path(sys.executable).parent / "hadolint"
    command = [hadolint, ROOT / "Dockerfile"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular() -> None:
    """What is shipped has a numbered user, labels, no tools of the build, and one entry point."""
    *_, shipped = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    instructions = re.findall(r"^([A-Z]+) (.*)", shipped.replace("\\\n", ""), re.MULTILINE)
    said = dict(instructions)
    assert said["USER"] == "65532:65532"
    assert said["ENTRYPOINT"] == '["tallygate"]'
    assert {"title", "version", "revision", "created"} <= set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", said["LABEL"])
    )
    assert "pip uninstall" in said["RUN"]
    copied = [text for name, text in instructions if name == "COPY"]
    assert copied == ["--from=packages /opt/tallygate /opt/tallygate"]


def test_the_builder_is_sent_what_the_image_is_made_of() -> None:
    """Every source that the Dockerfile copies is let through by .dockerignore, and nothing else."""
    text = (ROOT / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(let) == sorted(copied)
    assert all((ROOT / each).exists() for each in copied)


def test_the_image_has_the_versions_that_are_tested() -> None:
    """Every pin of the image's lock is one of the repository's, with its hashes."""
    lock, ours = (ROOT / "requirements.lock").read_text(), install.LOCK.read_text()
    tested = dict(PIN.findall(lock))
    pinned = dict(PIN.findall(ours))
    assert pinned.items() <= tested.items(), "run `make lock`"
    assert set(HASH.findall(ours)) <= set(HASH.findall(lock))


def test_the_image_has_what_it_needs_and_no_more() -> None:
    """The core and three extras are in its lock; embedded servers, Parquet and tools are not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"]]
    for extra in ("native", "otel", "stripe"):
        needed += extras[extra]
    pinned = {canonicalize_name(name) for name, _ in PIN.findall(install.LOCK.read_text())}
    assert {canonicalize_name(Requirement(each).name) for each in needed} <= pinned
    left_out = [*extras["embedded"], *extras["archive"], "pytest", "mypy", "uv"]
    assert not {canonicalize_name(Requirement(each).name) for each in left_out} & pinned


def test_the_bill_names_every_package() -> None:
    """Each has its version, its place in the index, its hashes; what it needs is there by name."""
    (folder,) = {str(each.locate_file("")) for each in distributions(name="aiohttp")}
    bill = install.bill(Path(folder))
    text = json.dumps(bill)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    components = bill["components"]
    assert isinstance(components, list)
    refs = [each["bom-ref"] for each in components]
    assert len(refs) == len(set(refs)) > 20
    (found,) = [each for each in components if each["name"] == "aiohttp"]
    assert found["purl"] == f"pkg:pypi/aiohttp@{found['version']}"
    assert found["licenses"]
    assert all(re.fullmatch("[0-9a-f]{64}", each["value"]) for each in found["properties"])
    (needs,) = [each for each in _dependencies(bill) if each["ref"] == found["bom-ref"]]
    assert any(str(each).startswith("yarl@") for each in needs["dependsOn"])
    assert folder not in text
    assert bill == install.bill(Path(folder)), "the same packages have the same bill"


def _dependencies(bill: dict[str, object]) -> list[dict[str, list[str]]]:
    listed = bill["dependencies"]
    assert isinstance(listed, list)
    return listed


async def test_the_version_is_told(tmp_path: Path) -> None:
    """Whoever has an image can ask it which it is."""
    code, out, _ = await run(Command(("--version",), {"PATH": "/usr/bin:/bin"}, str(tmp_path)))
    assert (code, out) == (0, f"tallygate {version('tallygate')}\n")


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A listener that gives each caller the next of some answers."""
    answers: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if not answers:
                    return
                connection.recv(1024)
                connection.sendall(answers.pop(0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"unix:{tmp_path / 's'}", answers
    answers.clear()
    with socket.socket(socket.AF_UNIX) as last:
        last.connect(str(tmp_path / "s"))
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1),
        (b"", 1),
    ],
)
def test_a_probe_follows_the_answer(
    answering: tuple[str, list[bytes]], answer: bytes, code: int
) -> None:
    """Exit code 0 is for status 200 alone."""
    address, answers = answering
    answers.append(answer)
    assert probe([address, "/livez"]) == code


def test_a_probe_of_nobody_fails() -> None:
    """Where nobody listens it fails, and it takes two arguments."""
    assert probe(["unix:/nonexistent/s", "/livez"]) == 1
    assert probe(["127.0.0.1:1", "/livez"]) == 1
    assert probe(["127.0.0.1:none", "/livez"]) == 1
    assert probe([]) == 2
