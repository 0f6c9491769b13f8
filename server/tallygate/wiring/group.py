"""Several processes that serve one port together: started, watched, replaced and ended.

Guarantees: what cannot start is told once, before the group is up; afterwards a process that ends
or hangs is replaced, ever more slowly while it does not stay up; what processes of an earlier,
larger group have left in their folders is handed in; nothing outlives the one that watches.
Refuses to know: calls. It decides nothing, and no call passes through it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from tallygate.adapters.prometheus.merging import OPEN_METRICS
from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages
from tallygate.api.ops_pages import Readiness
from tallygate.settings import Settings
from tallygate.wiring.leftover import folder_of, left_over, note_done
from tallygate.wiring.place import Place
from tallygate.wiring.roles import Role
from tallygate.wiring.worker import END_S
from tallygate.wiring.worker_line import Failed, Leaving, Order, Started, State, WorkerFailed
from tallygate.wiring.worker_process import WorkerProcess, page

START_S: Final = 60.0
"""For a process to say that it listens: a start takes a second, on a busy machine ten."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_LAST_S: Final = 10.0
STEADY_S: Final = 60.0
"""Who stayed up for so long is replaced at once again."""
HANDED_IN_S: Final = 3.0
"""How long nothing has to be left: what is announced to those who rebuild is told by then."""
HEIRS_MAX: Final = 4
"""Processes at once that hand in for others: each takes the memory of one that serves."""
KILLED_S: Final = 5.0
"""For a process to be gone that has said its last, or was killed."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Slot:
    """One place in the group, and the process that has it now."""

    order: Order
    started: asyncio.Future[Started]
    state: str = "starting"
    process: WorkerProcess | None = None
    failure: tuple[str, str] | None = None
    empty_since_s: float | None = None
    finished: bool = False
    delay_s: float = BACKOFF_FIRST_S

    @property
    def name(self) -> str:
        """The process's name in metrics and logs."""
        return str(self.order.place.index)

    def reason(self, cause: str) -> str:
        """Return why there is no process, for people."""
        return self.failure[0] if self.failure else cause

    @property
    def hands_in(self) -> bool:
        """Whether it is there only for what an earlier process has left."""
        return not self.order.place.listens


@dataclass(frozen=True, slots=True)
class GroupParts:
    """What the processes have together: addresses, what they inherit, and where they tell."""

    addresses: Sequence[str]
    envoy: Sequence[str]
    kept: Sequence[int]
    folder: Path
    own: GroupMetrics
    pages: GroupPages

    def ops_path(self, index: int) -> str:
        """Return the private socket of a process's ops listener."""
        return f"{self.folder}/{index}.sock"


class Group:
    """The processes. `start` and `stop` once each; `readiness` from any thread."""

    def __init__(self, settings: Settings, roles: frozenset[Role], parts: GroupParts) -> None:
        self._settings = settings
        self._roles = roles
        self._parts = parts
        self._slots: list[Slot] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._heirs = asyncio.Semaphore(HEIRS_MAX)

    async def start(self) -> Started:
        """Start all processes; return where they listen. Raises `WorkerFailed`."""
        # One first: what no process can do is then told once.
        first = self._fill(0)
        found = await first.started
        others = [self._fill(index) for index in range(1, self._settings.processes)]
        await asyncio.gather(*(slot.started for slot in others))
        for index in left_over(self._settings.data_dir, self._settings.processes):
            self._fill(index, listens=False)
        return found

    async def stop(self) -> None:
        """Have all processes drain and end; kill those that have not when the grace is over."""
        self._stopping.set()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.tell_to_end()
        if not self._keepers:
            return
        grace_s = self._settings.drain_grace_ms / 1000 + END_S
        _, late = await asyncio.wait(self._keepers, timeout=grace_s)
        for slot in self._slots:
            if late and slot.process is not None:
                log.error("process_killed", process=slot.name)
                slot.process.kill()
        await asyncio.gather(*self._keepers)

    def readiness(self) -> Readiness:
        """Say whether every process that listens is ready, and what is amiss with which."""
        states = {f"process {slot.name}": slot.state for slot in self._slots}
        serving = [slot.state == "ok" for slot in self._slots if not slot.hands_in]
        complete = len(serving) == self._settings.processes
        if self._stopping.is_set():
            return Readiness(False, {"group": "draining"} | states)
        return Readiness(complete and all(serving), states)

    def _fill(self, index: int, *, listens: bool = True) -> Slot:
        settings = self._settings
        own = {
            "data_dir": folder_of(settings.data_dir, index),
            "ops_address": f"unix:{self._parts.ops_path(index)}",
            "grpc_address": tuple(self._parts.addresses),
            "envoy_address": tuple(self._parts.envoy),
        }
        order = Order(
            settings.model_copy(update=own),
            self._roles if index == 0 else frozenset({Role.SERVE}),
            Place(index, settings.processes, listens),
        )
        slot = Slot(order, asyncio.get_running_loop().create_future())
        if slot.hands_in:
            # Nobody waits for it, and nothing fails without it.
            slot.started.set_result(Started([], [], []))
        self._slots = [*self._slots, slot]
        keeper = self._keep_heir(slot) if slot.hands_in else self._keep(slot)
        self._keepers.append(asyncio.create_task(keeper, name=f"process-{index}"))
        return slot

    async def _keep_heir(self, slot: Slot) -> None:
        async with self._heirs:
            if not self._stopping.is_set():
                with self._parts.own.handing_in.track_inprogress():
                    await self._keep(slot)
        self._slots = [each for each in self._slots if each is not slot]

    async def _keep(self, slot: Slot) -> None:
        """Have a process in the slot until the group stops, or nothing is left to be done."""
        loop, own = asyncio.get_running_loop(), self._parts.own
        while True:
            began_s = loop.time()
            cause, code = await self._once(slot)
            if self._stopping.is_set():
                return
            if slot.finished and code == 0:
                await asyncio.to_thread(note_done, slot.order.settings.data_dir)
                log.info("process_handed_in", process=slot.name)
                return
            if not slot.started.done():
                text, where = slot.failure or (f"{slot.state}, exit code {code}", "")
                slot.started.set_exception(WorkerFailed(text, field=where))
                return
            if loop.time() - began_s >= STEADY_S:
                slot.delay_s = BACKOFF_FIRST_S
            own.restarts[slot.name, cause].inc()
            log.error(
                "process_replaced", process=slot.name, cause=cause, code=code, in_s=slot.delay_s
            )
            if await self._stops_within(slot.delay_s):
                return
            slot.delay_s = min(2 * slot.delay_s, BACKOFF_LAST_S)

    async def _once(self, slot: Slot) -> tuple[str, int]:
        """Start a process, and hear it to its end; return why it ended, and with which code."""
        parts = self._parts
        slot.state, slot.failure, slot.finished = "starting", None, False
        slot.empty_since_s = None
        try:
            process = await WorkerProcess.start(slot.order, parts.kept)
        except OSError as error:
            slot.failure = (f"cannot start a process: {error}", "")
            return "failed", 0
        slot.process = process
        if self._stopping.is_set():
            process.tell_to_end()
        path = parts.ops_path(slot.order.place.index)
        # Exemplars are in the one format only, which takes longer to read.
        accept = "*/*" if self._settings.tracing == "off" else OPEN_METRICS
        parts.pages.join(slot.name, lambda: page(path, "/metrics", accept))
        cause = "failed"
        try:
            cause = await self._heard(slot, process)
        except TimeoutError:
            cause = "stalled"
            process.kill()
        finally:
            parts.own.up[slot.name].set(0)
            code = await process.reaped(KILLED_S)
            parts.pages.leave(slot.name)
            slot.process = None
            slot.state = f"not there: {slot.reason(cause)}"
        return cause, code

    async def _heard(self, slot: Slot, process: WorkerProcess) -> str:
        """Hear a process to its end; return why that is. Raises TimeoutError when it is silent."""
        cause, patience_s = "failed", START_S
        grace_s = self._settings.drain_grace_ms / 1000 + END_S
        while True:
            async with asyncio.timeout(grace_s if self._stopping.is_set() else patience_s):
                message = await process.heard()
            match message:
                case None:
                    return cause
                case Started():
                    cause, patience_s = "ended", self._settings.loop_stall_ms / 1000
                    self._parts.own.up[slot.name].set(1)
                    if not slot.started.done():
                        slot.started.set_result(message)
                case State():
                    self._noted(slot, process, message)
                case Failed(text, where):
                    slot.failure = (text, where)
                    log.error("process_failed", process=slot.name, detail=text)
                case Leaving():
                    slot.state, patience_s = "draining", grace_s
                    self._parts.own.up[slot.name].set(0)
                    # What it has counted since it was asked last.
                    await asyncio.to_thread(self._parts.pages.refresh)

    def _noted(self, slot: Slot, process: WorkerProcess, state: State) -> None:
        amiss = [f"{name} {each}" for name, each in state.components.items() if each != "ok"]
        slot.state = "ok" if state.ready else "; ".join(amiss) or "not ready"
        if not slot.hands_in:
            return
        slot.state = f"{state.unfinished} to hand in"
        now_s = asyncio.get_running_loop().time()
        if state.unfinished:
            slot.empty_since_s = None
        elif slot.empty_since_s is None:
            slot.empty_since_s = now_s
        elif now_s - slot.empty_since_s >= HANDED_IN_S:
            slot.finished = True
            process.tell_to_end()

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
