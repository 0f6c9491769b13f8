"""Commands as processes forked from one that has imported the command line.

Owns that process, one for each run of pytest and worker, and what is asked of it. Guarantees that a
command has an interpreter, an environment, a folder, a session and an output of its own, that what
it is is decided after the fork, and that it is killed where nobody waits for it any more, as when
the one that asked for it dies. Refuses to know verbs, and what they say.

A command takes a second of a processor to import what it is made of, and a tenth of one to do what
a test asks of it. `test_commands.py` starts the installed one too.
"""

import array
import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

ASKED_BYTES_MAX: Final = 200_000
"""More than the arguments and the environment of a command."""

NUMBER_BYTES: Final = 16
FILES: Final = 3
KILLED: Final = 70
"""What a waiter ends with whose command nobody waits for."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str


class Child:
    """A command that was started: `pid`, and `returncode` once it has ended."""

    def __init__(self, pid: int, reply: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.create_task(self._wait(reply))

    async def _wait(self, reply: socket.socket) -> int:
        with reply:
            code = await asyncio.get_running_loop().sock_recv(reply, NUMBER_BYTES)
        assert code, "the process that commands are forked from has ended"
        self.returncode = int(code)
        return self.returncode

    async def wait(self) -> int:
        """Wait for its end; return its exit code, which is negative after a signal."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)


async def start(command: Command, out: int, err: int) -> Child:
    """Start a command that writes to these files, which stay the caller's to close."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs:
        _ask(_template(), command, (theirs.fileno(), out, err))
    try:
        pid = await asyncio.get_running_loop().sock_recv(ours, NUMBER_BYTES)
    except BaseException:
        # Nobody waits for it, so it is killed.
        ours.close()
        raise
    assert pid, "the process that commands are forked from has ended"
    return Child(int(pid), ours)


async def run(command: Command) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, negative after a signal, and its output.

    Where this is cancelled the command is killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = await start(command, out.fileno(), err.fileno())
        try:
            code = await child.wait()
        finally:
            child.kill()
        return code, _text(out), _text(err)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _ask(template: socket.socket, command: Command, files: tuple[int, ...]) -> None:
    asked = json.dumps([command.arguments, dict(command.environment), command.cwd]).encode()
    assert len(asked) < ASKED_BYTES_MAX
    sent = array.array("i", files)
    template.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])


@functools.cache
def _template() -> socket.socket:
    """Start the process that is forked, at the first command of a run."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ASKED_BYTES_MAX)
    with theirs:
        process = subprocess.Popen(
            # Without -P, files of this folder would be in the way of modules of the same name.
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=_bare(),
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _bare() -> dict[str, str]:
    """Return an environment in which nothing that a command looks at is decided yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYGATE_")}
    # A console that finds its width as it is made would keep it.
    kept.pop("COLUMNS", None)
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _serve(control: socket.socket) -> None:
    """Fork a waiter for each command asked for, until nobody can ask any more."""
    verbs: Any = importlib.import_module("tallygate.commands.verbs")
    for name in verbs.VERBS:
        verbs.command(name)
    main: Any = importlib.import_module("tallygate.cli").main
    gc.freeze()
    # Whoever runs the tests interrupts those, and not this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Waiters need no waiting for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, files, _, _ = socket.recv_fds(control, ASKED_BYTES_MAX, FILES)
        if not asked:
            return
        if os.fork() == 0:
            control.close()
            _wait(Command(*json.loads(asked)), socket.socket(fileno=files[0]), files[1:])
            # Only the command comes here, so that it ends as an interpreter does.
            main()
            return
        for each in files:
            os.close(each)


def _wait(command: Command, reply: socket.socket, output: list[int]) -> None:
    """Fork the command, and return there alone; here, wait for its end and tell it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        reply.close()
        _become(command, output)
        return
    for each in output:
        os.close(each)
    _tell(child, reply)


def _tell(child: int, reply: socket.socket) -> NoReturn:
    ended = os.pidfd_open(child)
    with contextlib.suppress(BrokenPipeError):
        reply.send(str(child).encode())
    ready, _, _ = select.select([ended, reply.fileno()], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
        os._exit(KILLED)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):
        reply.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(command: Command, output: list[int]) -> None:
    """Take on what makes a command: its arguments, environment, folder, session and output."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, each in enumerate(output, 1):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(command.environment)
    os.chdir(command.cwd)
    sys.argv = [str(Path(sys.prefix) / "bin" / "tallygate"), *command.arguments]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
