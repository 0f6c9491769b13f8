"""`make watch-check`: a real Prometheus scrapes a real run, and every panel has something to show.

Owns the run. Guarantees that an expression without data, a rule that cannot be worked out, a target
that is down or an exposition that promtool objects to fails it. Refuses to draw: see `draw`.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.servers import eventually

from . import made, promtool
from .draw import PICTURES, Shown, draw
from .panel import Dashboard, Kind, Target, chosen
from .place import Place, busy
from .prometheus import Prometheus, Scraped, Series, prometheus

EVERY_S: Final = 1
"""Between scrapes: a run of two minutes has as many points as one of an hour would."""

DATA_TIMEOUT_S: Final = 120.0
VARIABLES: Final = {
    "$__rate_interval": "10s",
    "$cluster": ".*",
    "$namespace": ".*",
    "$job": ".*",
}


async def check(folder: Path, seconds: int, seed: int, *, pictures: bool) -> list[str]:
    """Run it for so long; return what is wrong, nothing if all is well."""
    async with busy(folder, seed) as place:
        faults = await exposed(place)
        rules = sorted(made.RULES.glob("*.yaml"))
        scraped = [
            Scraped(f"tallygate-{name.partition('-')[0]}", int((await each.ready())["ops"]))
            for name, each in place.installation.fleet.workers.items()
        ]
        began_s = time.time()
        async with prometheus(folder, scraped, rules, EVERY_S) as asked:
            await asyncio.sleep(seconds)
            # A window of usage has ended once, so that Stripe was told; what is open is counted
            # every fifteen seconds.
            for name in ('tallygate_stripe_sends_total{outcome="taken"}', "tallygate_stripe_open"):
                await eventually(
                    partial(_has, asked, name), DATA_TIMEOUT_S, what=f"{name} to be there"
                )
            span_s = time.time() - began_s
            answered, missing = await shown(asked, span_s)
            faults += missing + await worked_out(asked)
            _say(f"{len(place.book.calls):,} calls in {span_s:.0f} s")
        ended = place.installation.fleet.unexpected
        faults += [f"{name} ended: {codes}" for name, codes in ended.items()]
    if pictures:
        # Afterwards: drawing takes seconds, and callers live in this process.
        for board, panels in answered.items():
            _drawn(board, panels)
    return faults


async def exposed(place: Place) -> list[str]:
    """Have promtool look at what each process shows."""
    faults = []
    for name, worker in place.installation.fleet.workers.items():
        status, text = await worker.page("/metrics")
        assert status == 200, (name, status)
        try:
            await asyncio.to_thread(promtool.promtool, "check", "metrics", text=text)
        except AssertionError as objection:
            faults.append(f"{name}: {objection}")
    return faults


async def shown(asked: Prometheus, span_s: float) -> tuple[dict[Dashboard, list[Shown]], list[str]]:
    """Ask for every panel of every dashboard; return the answers, and what has none."""
    answers: dict[Dashboard, list[Shown]] = {}
    faults = []
    for board in made.BOARDS:
        panels = answers[board] = []
        for panel in board.panels:
            found: list[tuple[Target, list[Series]]] = []
            for target in panel.targets:
                expr = _asked(target.expr, span_s)
                try:
                    series = await _series(asked, expr, panel.kind, span_s)
                except AssertionError as objection:
                    faults.append(f"{board.uid}: {panel.title}: {objection}")
                    continue
                if not any(values for _, values in series):
                    faults.append(f"{board.uid}: {panel.title}: nothing for {expr}")
                found.append((target, series))
            panels.append(Shown(panel, [_named(target, each) for target, each in found]))
    return answers, faults


async def worked_out(asked: Prometheus) -> list[str]:
    """Return the rules that Prometheus could not work out, and print the alerts that fire."""
    faults, firing = [], []
    for group in (await asked.asked("rules"))["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                faults.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}")
            if rule.get("state") == "firing":
                firing.append(rule["name"])
                if rule["labels"]["severity"] == "page":
                    faults.append(f"{rule['name']} fires, and nothing was done to deserve it")
    targets = (await asked.asked("targets"))["activeTargets"]
    faults += [
        f"{each['labels']['job']}: {each['lastError']}"
        for each in targets
        if each["health"] != "up"
    ]
    _say(f"alerts that fire: {', '.join(firing) or 'none'}")
    return faults


async def _series(asked: Prometheus, expr: str, kind: Kind, span_s: float) -> list[Series]:
    if kind is Kind.BARS:
        return await asked.instant(expr)
    now_s = time.time()
    return await asked.over(expr, now_s - span_s + 5, now_s, EVERY_S)


async def _has(asked: Prometheus, expr: str) -> bool:
    return any(values for _, values in await asked.instant(expr))


def _asked(expr: str, span_s: float) -> str:
    text = chosen(expr)
    for name, value in (VARIABLES | {"$__range": f"{span_s:.0f}s"}).items():
        text = text.replace(name, value)
    return text


def _named(target: Target, series: list[Series]) -> dict[str, list[tuple[float, float]]]:
    """Return series by what Grafana would call them."""

    def name(labels: dict[str, str]) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda at: labels.get(at[1], ""), target.legend)

    return {name(labels): values for labels, values in series if values}


def _drawn(board: Dashboard, panels: list[Shown]) -> None:
    path = PICTURES / f"{board.uid}.png"
    draw(board, panels, path)
    _say(f"{path.relative_to(made.ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run it as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.watch.check")
    parser.add_argument("--seconds", type=int, default=75, help="how long calls are made, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pictures", action="store_true", help="only check")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tgw-") as folder:
        faults = asyncio.run(
            check(Path(folder), given.seconds, given.seed, pictures=not given.no_pictures)
        )
    for each in faults:
        _say(f"WRONG {each}")
    _say("every panel has something to show" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
