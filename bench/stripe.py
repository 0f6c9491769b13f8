"""`python -m bench.stripe`: how fast a relay tells Stripe of a backlog, and if within its limits.

Guarantees: intents are written, claimed, sent and noted by the product's own code, over Stripe's
own client, to a fake Stripe in a process of its own that holds the limits of live mode. In the end
the fake is asked whether it has every unit once.
Refuses to know: how usage becomes intents.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

import aiohttp

from bench.processes import family_s
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.pace import EvenPace
from tallygate.commands.output import Sheet, show
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import Intent, IntentKind, IntentPlace, identity
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_send import SendOptions, SendParts, StripeSender
from tallygate.wiring.collector import collect_seldom
from tallygate.wiring.stripe import CONCURRENCY_MAX, PER_LANE, SENDERS

KEY: Final = "sk_live_bench"
EVENT: Final = "calls"
WRITTEN_AT_ONCE: Final = 5_000


@dataclass(slots=True)
class Told:
    """What senders told of themselves."""

    outcomes: Counter[str] = field(default_factory=Counter)
    waited_s: float = 0.0

    def answered(self, _: str, outcome: str, count: int) -> None:
        """Count it."""
        self.outcomes[outcome] += count

    def waited(self, _: str, seconds: float) -> None:
        """Add it up."""
        self.waited_s += seconds

    def held(self, _: str, reason: str) -> None:
        """Nothing is done about it."""

    def stale_notes(self, _: str, count: int) -> None:
        """Nothing is done about it."""


@contextmanager
def fake_stripe(*, limited: bool) -> Iterator[tuple[str, int]]:
    """Start a fake in a process of its own; lend its address and the process' number."""
    command = [sys.executable, "-m", "tallygate_fake_stripe", "--port", "0"]
    command += ["--unknown-customer", "accept", *([] if limited else ["--no-rate-limits"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def backlog(count: int, customers: int, now_us: int) -> Iterator[Intent]:
    """Iterate over intents of so many customers, minute by minute back from now."""
    at_us = now_us - now_us % MINUTE_US - HOUR_US
    for number in range(count):
        customer, minute = number % customers, number // customers
        start_us = at_us - minute * MINUTE_US
        place = IntentPlace(
            *(TenantId(f"t{customer}"), f"cus_{customer}", MeterName(EVENT), "{}"),
            *(start_us, start_us + MINUTE_US, at_us - 40 * DAY_US, at_us + DAY_US),
        )
        identifier, key = identity((number,))
        yield Intent(
            *("stripe", place, 1, IntentKind.DELTA, 1, "1", EVENT, start_us, identifier, key)
        )


async def drained(
    dsn: str, url: str, chosen: argparse.Namespace, beside: Mapping[str, Callable[[], float]]
) -> Sequence[tuple[str, str]]:
    """Drain a backlog; return what there is to say, also of the processors of others beside it."""
    postgres, clock, told = Postgres(dsn), SystemClock(), Told()
    intents, sends = PostgresStripeIntents(postgres), PostgresStripeSends(postgres)
    client = Client(lambda: KEY, ClientOptions(url=url, connections_max=SENDERS * CONCURRENCY_MAX))
    await client.stripe().v1.billing.meters.create_async(
        {
            "event_name": EVENT,
            "display_name": "Calls",
            "default_aggregation": {"formula": "sum"},
        },
        client.calling(),
    )
    rows = list(backlog(chosen.intents, chosen.customers, clock.now_us()))
    for at in range(0, len(rows), WRITTEN_AT_ONCE):
        await intents.intend(rows[at : at + WRITTEN_AT_ONCE], clock.now_us())
    gate = Gate(clock, EvenPace(chosen.rate))
    parts = SendParts(sends, StripeUsage(client, clock), gate, clock, told)
    options = SendOptions(lanes_max=chosen.rate, per_lane=PER_LANE, concurrency_max=CONCURRENCY_MAX)
    # As a relay does once it has started.
    collect_seldom()
    clocks = {"the relay": time.process_time, **beside}
    before = {name: read() for name, read in clocks.items()}
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(_until_done(StripeSender("stripe", parts, options), told, chosen))
    took_s = time.monotonic() - began_s
    cpu_s = {name: read() - before[name] for name, read in clocks.items()}
    await client.close()
    await postgres.close()
    has = await _total(url)
    taken = told.outcomes["taken"] + told.outcomes["repeated"]
    return [
        ("intents", f"{chosen.intents:,} of {chosen.customers:,} customers"),
        ("rate asked for", f"{chosen.rate:,} calls/s"),
        ("sent", f"{taken / took_s:,.0f} events/s, in {took_s:.1f} s"),
        *(
            (f"processor of {name}", f"{used_s / taken * 1e6:,.0f} µs per event")
            for name, used_s in cpu_s.items()
        ),
        ("waited for the rate", f"{told.waited_s / taken * 1000:,.2f} ms per event"),
        ("throttled by Stripe", f"{told.outcomes['throttled']:,} calls"),
        ("Stripe has", f"{has:,} of {taken:,} units"),
    ]


async def _until_done(sender: StripeSender, told: Told, chosen: argparse.Namespace) -> None:
    ends_s = time.monotonic() + chosen.seconds
    while told.outcomes["taken"] + told.outcomes["repeated"] < chosen.intents:
        if time.monotonic() >= ends_s:
            return
        counts = await sender.run_once()
        if not counts.more:
            await asyncio.sleep(0.05)


async def _total(url: str) -> Decimal:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/_fake/totals", params={"livemode": "true", "limit": "100000"}) as reply,
    ):
        rows = json.loads(await reply.read())["data"]
    return sum((Decimal(str(row["total"])) for row in rows), Decimal(0))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="bench.stripe")
    parser.add_argument("--intents", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--unlimited", action="store_true", help="a fake without limits of rate")
    parser.add_argument("--seconds", type=int, default=600, help="stop after so long")
    chosen = parser.parse_args()

    async def run() -> Sequence[tuple[str, str]]:
        with tempfile.TemporaryDirectory() as folder:
            async with EmbeddedPostgres(Path(folder), unsafe_fast=True) as server:
                await migrate(server.dsn)
                with fake_stripe(limited=not chosen.unlimited) as (url, fake_pid):
                    beside = {
                        "Postgres": lambda: family_s(server.pid),
                        "the fake": lambda: family_s(fake_pid),
                    }
                    return await drained(server.dsn, url, chosen, beside)

    show([Sheet("stripe", ("what", "figure"), asyncio.run(run()))], as_json=False)


if __name__ == "__main__":
    main()
