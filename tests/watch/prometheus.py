"""A real Prometheus that scrapes processes of ours, and what it answers.

Owns its life. Guarantees that it listens on loopback only and ends with its block. Refuses to know
what is asked of it.
"""

import asyncio
import json
import math
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tallygate.adapters.embedded.redis import free_port
from tests.servers import eventually

from .promtool import program

TIMEOUT_S: Final = 20.0
Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels, and values by time in seconds."""


@dataclass(frozen=True, slots=True)
class Scraped:
    """A process to be scraped: its job, and the port of its ops listener."""

    job: str
    port: int


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where it listens. Every question raises AssertionError where it is refused."""

    url: str

    async def instant(self, expr: str) -> list[Series]:
        """Return what an expression comes to now."""
        found = await self.asked("query", query=expr)
        if found["resultType"] == "scalar":
            return [({}, _values([found["result"]]))]
        return [(each["metric"], _values([each["value"]])) for each in found["result"]]

    async def over(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Return what an expression came to over a stretch of time."""
        found = await self.asked(
            "query_range", query=expr, start=f"{start_s}", end=f"{end_s}", step=f"{step_s}"
        )
        return [(each["metric"], _values(each["values"])) for each in found["result"]]

    async def asked(self, path: str, **parameters: str) -> Any:
        """Return what a page of its API holds."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        answer = await asyncio.to_thread(_fetched, url)
        assert answer["status"] == "success", (path, parameters, answer)
        return answer["data"]


@asynccontextmanager
async def prometheus(
    folder: Path, scraped: Sequence[Scraped], rules: Sequence[Path], every_s: int
) -> AsyncIterator[Prometheus]:
    """Lend a Prometheus that scrapes these and works out the rules; it is killed on leaving."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(scraped, rules, every_s)))
    with (folder / "prometheus.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            stdout=log,
            stderr=log,
        )
    lent = Prometheus(f"http://127.0.0.1:{port}")

    async def ready() -> bool:
        assert child.returncode is None, (folder / "prometheus.log").read_text()
        try:
            return len((await lent.asked("targets"))["activeTargets"]) == len(scraped)
        except OSError:
            return False

    try:
        await eventually(ready, TIMEOUT_S, what="Prometheus to answer")
        yield lent
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def _config(scraped: Sequence[Scraped], rules: Sequence[Path], every_s: int) -> Mapping[str, Any]:
    jobs: dict[str, list[str]] = {}
    for each in scraped:
        jobs.setdefault(each.job, []).append(f"127.0.0.1:{each.port}")
    return {
        "global": {"scrape_interval": f"{every_s}s", "evaluation_interval": f"{every_s}s"},
        "rule_files": [str(each) for each in rules],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": ports, "labels": {"cluster": "here", "namespace": "metering"}}
                ],
            }
            for job, ports in jobs.items()
        ],
    }


def _fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def _values(pairs: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    # What is not a number is no value: as the quantile of a histogram without observations.
    return [(at, float(value)) for at, value in pairs if math.isfinite(float(value))]
