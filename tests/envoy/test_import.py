"""The configuration of envoyproxy/ratelimit becomes a catalog that decides the same.

What it decides there is worked out here anew, from what its documentation says.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallygate.adapters.catalog.document import parse
from tallygate.domain.errors import CatalogInvalid
from tallygate.gen.envoy import rate_limit_pb2 as pb
from tallygate.wiring.ratelimit_config import catalog_of_configs
from tests.e2e.processes import tallygate
from tests.envoy.world import sidecar

CONFIG = Path(__file__).with_name("ratelimit.yaml")
OVER = pb.RATE_LIMIT_CODE_OVER_LIMIT
UNBOUNDED = 2**32 - 1
CALLS = 250

Entries = tuple[tuple[str, str], ...]

VALUES: Mapping[str, Sequence[str]] = {
    "remote_address": ("10.0.0.7", "10.0.0.8", "10.0.0.9"),
    "path": ("/files/a", "/files/b", "/api/1/items", "/api/1", "/api/2", "/login", "/"),
    "user": ("root", "ann", "bob"),
    "method": ("GET", "POST"),
    "plan": ("gold", "tin"),
    "trial": ("x",),
    "generic_key": ("a", "b"),
    "unheard-of": ("x",),
}
SHAPES: Sequence[tuple[str, ...]] = (
    *(("remote_address",), ("path",), ("path", "user"), ("path", "method"), ("plan",)),
    *(("trial",), ("generic_key", "generic_key"), ("unheard-of",), ("path", "user", "method")),
)


@dataclass
class Documented:
    """The service, as its documentation has it."""

    descriptors: Sequence[Mapping[str, Any]]
    counters: Counter[Entries] = field(default_factory=Counter)

    def decide(self, call: Sequence[Entries]) -> tuple[bool, list[tuple[bool, int]]]:
        """Return whether a call is over, and of each descriptor that and what is left."""
        found = [self._find(entries) for entries in call]
        replaced = {
            each["name"]
            for node, _ in found
            for each in node.get("rate_limit", {}).get("replaces", ())
        }
        told = []
        for node, counted in found:
            limit = node.get("rate_limit")
            if limit is None or limit.get("name") in replaced:
                told.append((False, 0))
            elif limit.get("unlimited"):
                told.append((False, UNBOUNDED))
            else:
                self.counters[counted] += 1
                left = limit["requests_per_unit"] - self.counters[counted]
                told.append((left < 0 and not node.get("shadow_mode"), max(left, 0)))
        return any(over for over, _ in told), told

    def _find(self, entries: Entries) -> tuple[Mapping[str, Any], Entries]:
        """Return the descriptor of the configuration, and what is counted as one."""
        level: Sequence[Mapping[str, Any]] = self.descriptors
        node: Mapping[str, Any] = {}
        counted = []
        for key, value in entries:
            node = self._most_specific(level, key, value)
            if not node:
                return {}, ()
            counted.append((key, node["value"] if node.get("share_threshold") else value))
            level = node.get("descriptors", ())
        return node, tuple(counted)

    def _most_specific(
        self, level: Sequence[Mapping[str, Any]], key: str, value: str
    ) -> Mapping[str, Any]:
        own = [each for each in level if each["key"] == key]
        exact = [each for each in own if each.get("value") == value]
        wild = [each for each in own if "*" in each.get("value", "") and _like(each, value)]
        plain = [each for each in own if "value" not in each]
        return next(iter([*exact, *wild, *plain]), {})


def _like(node: Mapping[str, Any], value: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in node["value"].split("*"))
    return re.fullmatch(pattern, value) is not None


def calls(seed: int) -> list[list[Entries]]:
    """Return calls of one to three descriptors of every shape."""
    chance = random.Random(seed)
    return [
        [
            tuple((key, chance.choice(VALUES[key])) for key in chance.choice(SHAPES))
            for _ in range(chance.randint(1, 3))
        ]
        for _ in range(CALLS)
    ]


async def test_decides_the_same(tmp_path: Path, redis_url: str) -> None:
    """Of hundreds of calls each is answered as the service's documentation has it."""
    document, _ = catalog_of_configs([CONFIG])
    there = Documented(yaml.safe_load(CONFIG.read_text())["descriptors"])
    seen: Counter[bool] = Counter()
    async with sidecar(tmp_path, redis_url, yaml.safe_load(document)) as here:
        for call in calls(8):
            request = pb.RateLimitRequest(domain="shop")
            for entries in call:
                descriptor = request.descriptors.add()
                for key, value in entries:
                    descriptor.entries.add(key=key, value=value)
            answer = await here.decide(request)
            over, told = there.decide(call)
            shown = [(each.code == OVER, each.limit_remaining) for each in answer.statuses]
            for (entries, (over_there, left)), (over_here, remaining) in zip(
                zip(call, told, strict=True), shown, strict=True
            ):
                assert over_here is over_there, (call, entries)
                # What only passes has no limit to show; a limit that only observes shows none.
                if remaining not in (0, UNBOUNDED) or left not in (0, UNBOUNDED):
                    assert remaining == left or entries[0][0] == "trial", (call, entries)
            assert (answer.overall_code == OVER) is over, call
            seen[over] += 1
    assert min(seen.values()) > CALLS // 5


def test_the_same_again() -> None:
    """The same files give the same document again, which is a catalog without faults."""
    document, notes = catalog_of_configs([CONFIG])
    assert catalog_of_configs([CONFIG]) == (document, notes)
    parsed = parse(document)
    assert set(parsed.catalog.envoy.domains) == {"shop"}
    assert not notes


def test_what_is_not_the_same(tmp_path: Path) -> None:
    """What cannot be carried over is told with its place."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "domain: d\n"
        "descriptors:\n"
        "  - key: a\n"
        "    quota_mode: true\n"
        "    value_to_metric: true\n"
        "    metadata: {x: 1}\n"
        "    rate_limit: {unit: MONTH, requests_per_unit: 3, replaces: [{name: gone}]}\n"
    )
    _, notes = catalog_of_configs([config])
    assert [path for path, _ in notes] == [
        "descriptors[0].quota_mode",
        "descriptors[0].value_to_metric",
        "descriptors[0].metadata",
        "descriptors[0].rate_limit.replaces",
        "descriptors[0].rate_limit.unit",
    ]


@pytest.mark.parametrize(
    ("lines", "line", "path"),
    [
        (("- key: a", "  rate_limit: {unit: fortnight}"), 4, "rate_limit.unit"),
        (("- {value: b}",), 3, "key"),
        (("- key: a", "  share_threshold: true"), 3, "share_threshold"),
        (("- key: a", "  rate_limit: {unit: day, requests_per_unit: -1}"), 4, "requests_per_unit"),
        (("- key: a", "  rate_limit: {unlimited: true, unit: day}"), 4, "rate_limit.unit"),
        (("- key: a", "  rate_limits: {}"), 4, "rate_limits"),
        (("- key: a", "- key: a"), 4, "descriptors[1]"),
    ],
)
def test_what_it_would_not_load(tmp_path: Path, lines: Sequence[str], line: int, path: str) -> None:
    """What the service would not load is a fault with file, line and path."""
    config = tmp_path / "config.yaml"
    config.write_text("\n".join(("domain: d", "descriptors:", *("  " + each for each in lines))))
    with pytest.raises(CatalogInvalid) as caught:
        catalog_of_configs([config])
    (fault,) = caught.value.faults
    assert fault.line == line
    assert fault.path.startswith("config.yaml: descriptors[")
    assert fault.path.endswith(path)


def test_a_domain_in_two_files(tmp_path: Path) -> None:
    """Files of one domain are joined; a descriptor that both have is a fault of the second."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    limit = "rate_limit: {unit: day, requests_per_unit: 1}"
    first.write_text(f"domain: d\ndescriptors: [{{key: a, {limit}}}]\n")
    second.write_text(f"domain: d\ndescriptors: [{{key: b, {limit}}}]\n")
    document, _ = catalog_of_configs([first, second])
    rules = parse(document).catalog.envoy.domains["d"].rules
    assert [rule.key for rule in rules] == ["a", "b"]
    second.write_text(f"domain: d\ndescriptors: [{{key: a, {limit}}}]\n")
    with pytest.raises(CatalogInvalid) as caught:
        catalog_of_configs([first, second])
    assert caught.value.faults[0].path == "b.yaml: descriptors[0]"


async def test_command(tmp_path: Path) -> None:
    """The command prints the catalog, or writes it where that changes anything."""
    printed = await tallygate("import-ratelimit-config", CONFIG, cwd=tmp_path)
    assert printed.code == 0
    assert parse(printed.out).catalog.envoy.domains["shop"].rules
    assert "not the same: hits beyond a limit" in printed.err
    written = tmp_path / "catalog.yaml"
    for _ in range(2):
        done = await tallygate("import-ratelimit-config", CONFIG, "-o", written, cwd=tmp_path)
        assert (done.code, done.out) == (0, "")
        assert written.read_text() == printed.out
    bad = tmp_path / "bad.yaml"
    bad.write_text("domain: d\ndescriptors: [{value: b}]\n")
    refused = await tallygate("import-ratelimit-config", bad, cwd=tmp_path)
    assert refused.code == 1
    assert "is required" in refused.out
