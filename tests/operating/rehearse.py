"""`make rehearse`: every disaster on real servers under load, cured, and held against the books.

`python -m tests.operating.rehearse [--only NAME] [--seed N] [--per-s R] [--keep]`. Guarantees that
what was lost is what callers were told was accepted and the ledger has not. Refuses to know how a
disaster is cured.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.installation import STRICT_UNITS
from tests.operating.disasters import DISASTERS, Disaster
from tests.operating.load import Books, us_now
from tests.operating.rehearsal import EQUAL, PAGE, Plan, Rehearsed, keep, line, page, read
from tests.operating.scene import Scene, scene, under_load
from tests.servers import connection

EVENTS: Final = "select event_id, tenant_id, amount from tallygate.usage_event"


async def rehearse(at: Scene, disaster: Disaster) -> Rehearsed:
    """Have one disaster befall the installation, cure it, and compare."""
    result = Rehearsed(disaster)
    books = at.load.books

    async def deed() -> None:
        await disaster.strike(at)
        await at.ledger_goes_on(us_now())
        result.ledger_s = time.monotonic() - at.struck_s

    at.done = []
    await under_load(at, deed)
    await (at.drain() if disaster.tell is None else at.drain_streams())
    result.accepted = len(books.accepted)
    result.waited_s = books.longest_wait_s(at.struck_s)
    lost, _ = await compared(at)
    result.lost = len(lost)
    sold = [books.accepted[name] for name in lost]
    result.lost_strict = sum(each.amount for each in sold if is_strict(each.tenant))
    if sold:
        oldest_us = min(each.accepted_us for each in sold)
        result.lost_s = (at.struck_us - oldest_us) / 1e6
        if disaster.tell is not None:
            # What is told again is what the callers have; what journals have comes by itself.
            await disaster.tell(at, dict(zip(lost, sold, strict=True)))
    await at.drain()
    left, result.odd = await compared(at)
    result.left = len(left)
    result.passed = passed(books)
    result.verify = await verified(at)
    result.steps = [*at.done]
    return result


async def compared(at: Scene) -> tuple[list[str], int]:
    """Return what callers were told was accepted and the ledger lacks; and how much it has else."""
    async with connection(at.place.ground.near_dsn) as opened:
        rows = await opened.fetch(EVENTS)
    found = {row["event_id"]: (row["tenant_id"], row["amount"]) for row in rows}
    told = at.load.books.accepted
    odd = len(rows) - len(found)
    odd += sum(
        name not in told or (told[name].tenant, told[name].amount) != what
        for name, what in found.items()
    )
    return [name for name in told if name not in found], odd


def passed(books: Books) -> int:
    """Return by how many units hard limits were passed, all tenants together."""
    granted = books.granted().items()
    return sum(max(0, units - STRICT_UNITS) for tenant, units in granted if is_strict(tenant))


def is_strict(tenant: str) -> bool:
    """Tell whether a tenant has a hard limit that is reached."""
    return tenant.startswith("strict")


async def verified(at: Scene) -> str:
    """Return what `tallygate verify` says: equal, or its first findings."""
    finished = await at.command("verify", "--json", codes=(0, 1))
    if finished.code == 0:
        return EQUAL
    sheets = finished.json()
    found = [" ".join(map(str, each.values())) for each in sheets.get("differences", [])]
    found += [f"not verified: {each['what']}" for each in sheets.get("not verified", [])]
    return "; ".join(found[:5])


@contextmanager
def open_folder() -> Iterator[Path]:
    """Lend a folder that others may enter: the account of Postgres copies from the archive."""
    with tempfile.TemporaryDirectory(prefix="tallygate-rehearse-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def run(folder: Path, plan: Plan) -> list[Rehearsed]:
    """Rehearse disaster after disaster on one installation."""
    results: list[Rehearsed] = []
    async with scene(folder, plan.seed, plan.per_s) as at:
        for disaster in plan.disasters:
            result = await rehearse(at, disaster)
            sys.stdout.write(line(result) + "\n")
            sys.stdout.flush()
            results.append(result)
            if plan.kept and not result.wrong:
                keep(plan, [result])
                PAGE.write_text(page(read()))
    return results


def main() -> int:
    """Run it as the command line says; exit 1 when anything is not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.operating.rehearse", description=__doc__)
    parser.add_argument("--only", action="append", choices=[each.name for each in DISASTERS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-s", type=float, default=200.0)
    parser.add_argument("--keep", action="store_true", help=f"keep what is right, in {PAGE.name}")
    given = parser.parse_args()
    chosen = [each for each in DISASTERS if not given.only or each.name in given.only]
    plan = Plan(given.seed, given.per_s, tuple(chosen), given.keep)
    with open_folder() as folder:
        results = asyncio.run(run(folder, plan))
    wrong = [text for each in results for text in each.wrong]
    sys.stdout.writelines(f"WRONG {text}\n" for text in wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
