"""A loop whose time is virtual, and processes on it that can be killed or stopped at any await.

Owns time, tasks and processes. Guarantees: the same calls give the same order of steps, whatever
the machine does; a killed process never runs another line, neither its `except` nor its `finally`,
just as after SIGKILL. Refuses to know what the processes do.
"""

import asyncio
import contextvars
from asyncio import base_events, tasks
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

_PROCESS: Final[contextvars.ContextVar["Process | None"]] = contextvars.ContextVar(
    "process", default=None
)
# A coroutine that is told to close may wait in a `finally`, again and again; so often it is told.
CLOSINGS_MAX: Final = 50


class Deadlock(AssertionError):
    """Nothing will ever happen again, and somebody still waits."""


class _Timeless:
    """Stands where a loop's selector is: waiting takes no time, but moves the loop's own."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        """Let the time pass at once."""
        if timeout is None:
            raise Deadlock("every task waits, and no timer is set")
        if timeout > 0:
            self._loop.advance()
        return []

    def close(self) -> None:
        """Hold nothing."""


class VirtualLoop(base_events.BaseEventLoop):
    """An event loop without sockets, signals or threads, whose time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._selector = _Timeless(self)
        self.unheard: list[str] = []
        # Kept, as what is collected runs its `finally`.
        self.tasks: list[SimTask] = []
        self.set_task_factory(_task)  # type: ignore[arg-type]  # its protocol is not exported
        self.set_exception_handler(self._hear)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now_s

    def advance(self) -> None:
        """Go to the next timer's time."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        self._now_s = max(self._now_s, scheduled[0].when())

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `main`, then let go of every task without running it."""
        try:
            return self.run_until_complete(main)
        finally:
            for task in self.tasks:
                if not task.done():
                    task.let_go()
            self.close()

    def _hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unheard.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _process_events(self, event_list: list[object]) -> None:
        """Have none: there are no sockets."""

    def _write_to_self(self) -> None:
        """Wake nobody: there are no threads."""


# The C task has no place to stand in front of a step; the one in Python has.
class SimTask(tasks._PyTask):  # type: ignore[name-defined,misc]
    """A task that takes a step only if its process lets it."""

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self.process = _PROCESS.get()
        self._held: BaseException | None = None
        super().__init__(coro, **options)

    def _Task__step(self, exc: BaseException | None = None) -> None:  # noqa: N802
        """Step, if the process may. The name is the one that the class calls by."""
        process = self.process
        if process is None or process.may_step(self, exc):
            super()._Task__step(exc)

    def resume(self, exc: BaseException | None) -> None:
        """Take the step that a stopped process could not."""
        if not self.done():
            self._Task__step(exc)

    def let_go(self) -> None:
        """Forget what was under way, without letting any of it reach the world."""
        self._log_destroy_pending = False
        self.process = _NOBODY
        coro = self.get_coro()
        for _ in range(CLOSINGS_MAX):
            try:
                coro.close()
            except RuntimeError:
                continue
            except BaseException:  # noqa: BLE001  whatever a dying coroutine says, nobody hears it
                return
            return


class Process:
    """What is killed, stopped and continued as one. `died` is called once, when it is killed."""

    def __init__(
        self, loop: VirtualLoop, name: str, died: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.steps = 0
        self.alive = True
        self.kill_at: int | None = None
        self._loop = loop
        self._died = died
        self._waiting: list[tuple[SimTask, BaseException | None]] | None = None

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str = "") -> "SimTask":
        """Run a coroutine, and all the tasks that it makes, as a part of this process."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        task = context.run(lambda: self._loop.create_task(coro, name=name or self.name))
        assert isinstance(task, SimTask)
        return task

    def kill(self) -> None:
        """End it now, between two steps, as SIGKILL does."""
        if self.alive:
            self.alive = False
            if self._died is not None:
                self._died()

    def stop(self) -> None:
        """Stop it where it is, as SIGSTOP does."""
        if self._waiting is None:
            self._waiting = []

    def go_on(self) -> None:
        """Continue it, as SIGCONT does."""
        waiting, self._waiting = self._waiting or [], None
        for task, exc in waiting:
            self._loop.call_soon(task.resume, exc)

    def may_step(self, task: "SimTask", exc: BaseException | None) -> bool:
        """Say whether a task may take its next step; count it, and die where that was asked."""
        if not self.alive:
            return False
        if self._waiting is not None:
            self._waiting.append((task, exc))
            return False
        self.steps += 1
        if self.steps == self.kill_at:
            self.kill()
            return False
        return True


class _Nobody(Process):
    """Whoever has let go: no step is taken any more."""

    def __init__(self) -> None:
        self.alive = False

    def may_step(self, task: "SimTask", exc: BaseException | None) -> bool:
        """Refuse."""
        return False


_NOBODY: Final = _Nobody()


def _task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> SimTask:
    assert isinstance(loop, VirtualLoop)
    task = SimTask(coro, loop=loop, **options)
    loop.tasks.append(task)
    return task


class SimClock:
    """The `Clock` port by virtual time. `ahead_us` is by how much the wall clock is wrong."""

    def __init__(self, loop: VirtualLoop, start_us: int, ahead_us: int = 0) -> None:
        self._loop = loop
        self._start_us = start_us
        self.ahead_us = ahead_us

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self._start_us + self.ahead_us + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return self._loop.time()

    def like(self, ahead_us: int) -> Self:
        """Return another machine's clock."""
        return type(self)(self._loop, self._start_us, ahead_us)
