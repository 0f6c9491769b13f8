"""What a piece of work costs, in counts and not in time.

Guarantees: the same work on the same Python gives the same counts, whatever else the machine does.
Refuses to know what the work is. What C code does between two calls of it is not seen.
"""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

OWN: Final = Path(__file__).parent.as_posix()


@dataclass(slots=True)
class Counts:
    """What was counted. `by_code` are the bytecodes that each function executed."""

    by_code: Counter[CodeType] = field(default_factory=Counter)
    python_calls: int = 0
    c_calls: int = 0
    tasks: int = 0
    futures: int = 0
    callbacks: int = 0
    # Objects that counting references does not free.
    garbage: int = 0

    @property
    def bytecodes(self) -> int:
        """Bytecodes executed in all, but for the harness's own."""
        return sum(
            count for code, count in self.by_code.items() if not code.co_filename.startswith(OWN)
        )

    def calls(self) -> dict[str, float]:
        """Return what `calls` counts, by name."""
        return {
            "python calls": self.python_calls,
            "C calls": self.c_calls,
            "tasks": self.tasks,
            "futures": self.futures,
            "callbacks": self.callbacks,
            "garbage": self.garbage,
        }

    def table(self, pieces: int, rows_max: int = 40) -> str:
        """Return how many bytecodes each function executed, for one of so many pieces of work."""
        total = self.bytecodes
        lines = [f"{'bytecodes':>10} {'share':>6}  function"]
        for code, count in self.by_code.most_common():
            if code.co_filename.startswith(OWN) or len(lines) > rows_max:
                continue
            lines.append(f"{count / pieces:10,.1f} {count / total:6.1%}  {_named(code)}")
        return "\n".join(lines)


def _named(code: CodeType) -> str:
    if code.co_filename == "<string>":
        # A dataclass's: its fields tell whose.
        fields = ", ".join(code.co_varnames[1 : min(5, code.co_argcount)])
        return f"{code.co_name}({fields}{', …' if code.co_argcount > 5 else ''})"
    where = "/".join(Path(code.co_filename).parts[-3:])
    return f"{code.co_qualname}  {where}:{code.co_firstlineno}"


@contextmanager
def bytecodes(counts: Counts) -> Iterator[None]:
    """Count the bytecodes that this thread executes in frames that are entered meanwhile."""
    by_code = counts.by_code

    def on_opcode(frame: FrameType, event: str, _: object) -> Any:  # as settrace has it
        if event == "opcode":
            by_code[frame.f_code] += 1
        return on_opcode

    def on_call(frame: FrameType, _: str, __: object) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return on_opcode

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def calls(counts: Counts) -> Iterator[None]:
    """Count calls of functions, Python's and C's, what the loop is given to do, and garbage."""

    def on_event(frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename.startswith(OWN):
            return
        if event == "call":
            counts.python_calls += 1
        elif event == "c_call":
            counts.c_calls += 1

    with _garbage_counted(counts), _loop_counted(counts):
        sys.setprofile(on_event)
        try:
            yield
        finally:
            sys.setprofile(None)


@contextmanager
def _garbage_counted(counts: Counts) -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
        counts.garbage = gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _loop_counted(counts: Counts) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    plain: Any = loop
    create_future, call_soon, factory = loop.create_future, loop.call_soon, loop.get_task_factory()

    def future() -> asyncio.Future[Any]:
        counts.futures += 1
        return create_future()

    def soon(callback: Callable[..., Any], *args: Any, **more: Any) -> asyncio.Handle:
        counts.callbacks += 1
        return call_soon(callback, *args, **more)

    def task(
        on: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        counts.tasks += 1
        return asyncio.Task(coroutine, loop=on, **more)

    plain.create_future, plain.call_soon = future, soon
    # A factory takes whatever create_task is given, which its type does not say.
    plain.set_task_factory(task)
    try:
        yield
    finally:
        del plain.create_future, plain.call_soon
        loop.set_task_factory(factory)
