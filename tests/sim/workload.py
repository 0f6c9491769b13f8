"""What the callers of a run ask for: every kind of call, repeats, and late settlements.

Owns the mix. Guarantees: the same chance gives the same calls. Refuses to know faults.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from tests.builders import BYTES, REQUESTS
from tests.oracle.facts import Answer, Call
from tests.sim import calls
from tests.sim.calls import Ask, Caller
from tests.sim.parts import Sidecar

TENANTS: Final = {"acme": "", "team": "acme", "beta": ""}
TTL_S: Final = 3.0
TTL_US: Final = round(TTL_S * 1_000_000)


class Workload:
    """Asks one thing after the other, as many callers at a time as run it."""

    def __init__(
        self,
        caller: Caller,
        chance: random.Random,
        sidecars: Sequence[Sidecar],
        trace: Callable[[str], None],
    ) -> None:
        self._caller = caller
        self._chance = chance
        self._sidecars = sidecars
        self._trace = trace
        self._asked: list[Ask] = []
        self._number = 0

    async def run(self, count: int, pause_s: float) -> None:
        """Ask for so many things, with pauses of about that length between them."""
        for _ in range(count):
            await asyncio.sleep(self._chance.uniform(0, 2 * pause_s))
            await self._ask()

    async def _ask(self) -> None:
        chance = self._chance
        self._number += 1
        name = f"op-{self._number}"
        who = chance.choice(list(TENANTS))
        sidecar = chance.choice(self._sidecars)
        meter = chance.choice((REQUESTS, REQUESTS, BYTES))
        amount = chance.randrange(1, 4)
        kind = chance.randrange(10)
        if kind < 5:
            await self._insist(calls.consume(who, name, ((meter, amount),)), sidecar)
        elif kind < 7:
            await self._insist(calls.record(who, name, meter, amount), sidecar)
        elif kind < 9:
            await self._two_phases(who, name, amount, sidecar)
        else:
            await self._refunded(who, name, amount, sidecar)
        if self._asked and chance.random() < 0.15:
            # As a caller does that did not hear the answer.
            await self._insist(chance.choice(self._asked), sidecar)

    async def _two_phases(self, who: str, name: str, amount: int, sidecar: Sidecar) -> None:
        chance = self._chance
        held = await self._insist(calls.reserve(who, name, REQUESTS, amount, TTL_US), sidecar)
        if held.answer is not Answer.GRANTED:
            return
        reservation = held.decision.partition(" ")[0]
        await asyncio.sleep(chance.uniform(0, 1.3 * TTL_S))
        what = chance.randrange(4)
        if what < 2:
            used = (str(REQUESTS), chance.randrange(1, amount + 3))
            await self._insist(calls.commit(who, f"{name}-done", reservation, used), sidecar)
        elif what == 2:
            await self._insist(calls.release(who, f"{name}-off", reservation), sidecar)

    async def _refunded(self, who: str, name: str, amount: int, sidecar: Sidecar) -> None:
        call = await self._insist(calls.consume(who, name, ((REQUESTS, amount),)), sidecar)
        if call.answer is Answer.GRANTED and not call.degraded:
            units = self._chance.randrange(1, amount + 1)
            ask = calls.refund(who, f"{name}-back", call.events[0], units)
            await self._insist(ask, sidecar)

    async def _insist(self, ask: Ask, sidecar: Sidecar) -> Call:
        call = await self._caller.insist(ask, sidecar)
        self._trace(
            f"{call.kind} {call.operation} of {call.tenant} at {call.sidecar}: {call.answer}"
            f" {'again ' if call.replayed else ''}{call.held} {call.text[:60]}"
        )
        self._asked.append(ask)
        return call
