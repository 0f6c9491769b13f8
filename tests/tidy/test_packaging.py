"""What the project needs is named with its reason, and locked with its hashes."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from . import text_rules
from .tree import Source, sources

PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<rest>[^\n]*)$", re.MULTILINE
)
# What requirements.lock is for: the service, its exports and Stripe, its embedded servers and
# native transport, the tools.
LOCKED_EXTRAS = ("archive", "embedded", "native", "otel", "stripe")
LOCKED_GROUPS = ("dev",)
# What bench/requirements.lock is for: drawing what a benchmark found.
BENCH_GROUPS = ("bench",)
LOCKS = ("requirements.lock", "bench/requirements.lock", "image/requirements.lock")


def test_requirements_have_reasons() -> None:
    """Every requirement in pyproject.toml stands under the reason for it."""
    source = _read("pyproject.toml")
    faults = [str(each) for each in text_rules.requirement_reasons(source, _all(source))]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "text",
    [
        'x = [\n    "redis>=8",\n]',
        'x = [\n    #\n    "redis>=8",\n]',
        '# The Redis client.\n\n"redis>=8"',
    ],
)
def test_missing_reason_is_found(text: str) -> None:
    """A requirement without a comment right above it is a fault."""
    assert list(text_rules.requirement_reasons(Source("pyproject.toml", text), ["redis>=8"]))


def test_lock_covers_the_project() -> None:
    """Every requirement that the lock is for is pinned to a version it allows."""
    project = _read("pyproject.toml")
    faults = _uncovered(_locked(project), _pins(_read("requirements.lock")))
    faults += _uncovered(_grouped(project, BENCH_GROUPS), _pins(_read("bench/requirements.lock")))
    assert not faults, f"run `make lock`: {faults}"


def test_uncovered_requirement_is_found() -> None:
    """A requirement that is not pinned, or pinned to a version too old, is a fault."""
    pins = {"redis": ["7.0"]}
    assert _uncovered(["redis>=8", "asyncpg"], pins) == ["redis>=8", "asyncpg"]
    assert _uncovered(["redis[hiredis]>=7"], pins) == []


@pytest.mark.parametrize("path", LOCKS)
def test_every_pin_has_hashes(path: str) -> None:
    """The lock pins exact versions, each with hashes."""
    text = _read(path).text
    pins = list(PIN.finditer(text))
    assert pins
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    bare = [block for block in blocks if block.strip() and "--hash=sha256:" not in block]
    assert bare == []
    assert len(blocks) - 1 == len(pins)


@pytest.mark.parametrize("path", LOCKS)
def test_lock_names_no_machine(path: str) -> None:
    """The lock says what to install and not from where."""
    lock = _read(path)
    assert not list(text_rules.machine_traces(lock))
    assert not re.search(r"://|^\s*--(?!hash)", lock.text, re.MULTILINE)


def _read(path: str) -> Source:
    (source,) = sources(below=path, generated=True)
    return source


def _all(source: Source) -> list[str]:
    document = tomllib.loads(source.text)
    project = document["project"]
    lists = [
        document["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *document["dependency-groups"].values(),
    ]
    return [requirement for each in lists for requirement in each]


def _locked(source: Source) -> list[str]:
    document = tomllib.loads(source.text)
    project = document["project"]
    lists = [
        project["dependencies"],
        *(project["optional-dependencies"][extra] for extra in LOCKED_EXTRAS),
        _grouped(source, LOCKED_GROUPS),
    ]
    return [requirement for each in lists for requirement in each]


def _grouped(source: Source, names: tuple[str, ...]) -> list[str]:
    groups = tomllib.loads(source.text)["dependency-groups"]
    return [requirement for name in names for requirement in groups[name]]


def _pins(source: Source) -> dict[str, list[str]]:
    """Read the pins: canonical name to versions, as a marker may choose between several."""
    found: dict[str, list[str]] = {}
    for pin in PIN.finditer(source.text):
        found.setdefault(canonicalize_name(pin["name"]), []).append(pin["version"])
    return found


def _uncovered(requirements: list[str], pins: dict[str, list[str]]) -> list[str]:
    missing = []
    for line in requirements:
        requirement = Requirement(line)
        versions = pins.get(canonicalize_name(requirement.name), [])
        if not versions or not all(map(requirement.specifier.contains, versions)):
            missing.append(line)
    return missing
