"""A destination of the simulator: it takes a message, and does not always say so.

Owns what one destination has taken. Guarantees: what it took is kept, repeats and all. Refuses to
know the outbox.
"""

import asyncio
import random
from typing import Final

from tallygate.ports import Delivery, DestinationRefused
from tests.sim.wire import Server

SECRET: Final = "whsec_c2VjcmV0LW9mLXRoZS1zaW11bGF0b3I"
HANG_S: Final = 30.0


class SimDestination:
    """The `DestinationSender` port. Shares are from 0 to 1, of all sends."""

    def __init__(self, name: str, server: Server, chance: random.Random) -> None:
        self._name = name
        self._server = server
        self._chance = chance
        self.taken: list[Delivery] = []
        self.refused = 0.0
        self.failed_after = 0.0
        self.hung = 0.0

    @property
    def name(self) -> str:
        """The destination's name in the catalog."""
        return self._name

    def heal(self) -> None:
        """Take everything, and say so."""
        self.refused = self.failed_after = self.hung = 0.0

    async def send(self, delivery: Delivery) -> None:
        """Deliver, or raise: then it may have been delivered."""
        await self._server.call(self._name, lambda: self._take(delivery), HANG_S)
        if self._chance.random() < self.hung:
            await asyncio.sleep(HANG_S + self._chance.random())

    def _take(self, delivery: Delivery) -> None:
        if self._chance.random() < self.refused:
            raise DestinationRefused("503", transient=True)
        self.taken.append(delivery)
        if self._chance.random() < self.failed_after:
            # As a library may: its text must not reach a row or a log.
            raise RuntimeError(f"500 for {SECRET}")
