"""The fake without its connections: accounts, time, and what it remembers.

Guarantees: what is due happens before a call sees anything, and what the call made due right after
it; accounts are made when they are first asked for, and bounded.
Refuses to know: sockets, and the way of a call.
"""

from collections import Counter, deque

from .behaviour import Behaviour, Caps, Switches
from .clock import Clock, Schedule
from .errors import StripeFault, full
from .faults import Faults
from .keys import ACCOUNT, KeyRing
from .passage import Passage
from .post import Post
from .sessions import Sessions
from .tables import Mint
from .wire import Noted, Reply, Request
from .world import World


class Engine:
    """The whole fake, but for its listener."""

    def __init__(self, clock: Clock, behaviour: Behaviour, caps: Caps) -> None:
        self.clock = clock
        self.behaviour = behaviour
        self.switches = Switches(behaviour)
        self.caps = caps
        self.schedule = Schedule()
        self.faults = Faults(caps.faults)
        self.keys = KeyRing()
        self.mint = Mint()
        self.sessions = Sessions(caps.objects)
        self.post = Post(clock, self.schedule, behaviour, kept=caps.deliveries)
        self.requests: deque[Noted] = deque(maxlen=caps.requests)
        self.statuses: Counter[int] = Counter()
        self.overflow: StripeFault | None = None
        self._worlds: dict[tuple[str, bool], World] = {}

    def world(self, account: str = ACCOUNT, *, livemode: bool = False) -> World:
        """Return what an account has in a mode. Raises `StripeFault` where there are too many."""
        found = self._worlds.get((account, livemode))
        if found is None:
            if len(self._worlds) >= self.caps.worlds:
                raise full("accounts", self.caps.worlds)
            found = self._worlds[account, livemode] = World(
                account,
                livemode=livemode,
                connected=account != ACCOUNT,
                behaviour=self.behaviour,
                caps=self.caps,
                schedule=self.schedule,
                post=self.post,
                mint=self.mint,
                sessions=self.sessions,
            )
        return found

    def worlds(self) -> tuple[World, ...]:
        """Return all accounts that anything was asked of."""
        return tuple(self._worlds.values())

    def run_due(self) -> int:
        """Have everything happen that is due by now; return how much that was.

        What finds no room is remembered: every later call is told of it.
        """
        ran = 0
        while True:
            try:
                return ran + self.schedule.run_due(self.clock.now_us())
            except StripeFault as fault:
                self.overflow = self.overflow or fault
                ran += 1

    def reset(self) -> None:
        """Forget everything but the time and the switches; calls that are held are let go."""
        self.faults.clear()
        self.schedule.clear()
        self.post.clear()
        self.requests.clear()
        self.statuses.clear()
        self._worlds.clear()
        self.keys = KeyRing()
        self.sessions = Sessions(self.caps.objects)
        self.overflow = None

    async def answer(self, request: Request) -> Reply:
        """Carry out a request."""
        self.run_due()
        passage = Passage(self, request)
        reply = await passage.run()
        self.run_due()
        self.statuses[0 if reply.drop else reply.status] += 1
        self.requests.append(passage.noted(reply))
        return reply
