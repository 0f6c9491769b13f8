"""Drives the client through the cases that all languages share: one JSON object in, one out.

Not shipped. `--mode sync` drives `Client`, `--mode asyncio` drives `AsyncClient`. The operations
are written once, as coroutines: those of the synchronous client never wait, and so run to their end
without a loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

import tallygate_client as tg
from conformance_bench import Benching, Work
from conformance_words import (
    Cancelled,
    Json,
    WorkFailed,
    decision_json,
    error_json,
    finished,
    items_of,
    limits_json,
    now,
    options_of,
    recorded_json,
    result_json,
    say,
    scope,
    settlement_json,
    usage_options,
)


class Driver(Benching):
    """What both modes do alike."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Any] = {}
        self.sdk = f"tallygate-python/{tg.__version__}"

    async def answer(self, asked: Json) -> Json:
        """Do one thing and say what came of it."""
        try:
            return {"id": asked.get("id"), "ok": await self.do(asked)}
        except Exception as error:  # noqa: BLE001  # every error is an answer here
            return {"id": asked.get("id"), "error": error_json(error)}

    async def do(self, asked: Json) -> Json:
        """Do one thing."""
        action: Callable[[Json], Awaitable[Json]] = getattr(self, f"do_{asked['do']}")
        return await action(asked)

    async def do_hello(self, _: Json) -> Json:
        """Say who this is."""
        return {"sdk": self.sdk, "language": "python"}

    async def do_open(self, asked: Json) -> Json:
        """Make a client."""
        tls = asked.get("tls")
        buffer = asked.get("buffer")
        options: Json = {"on_absent": asked.get("on_absent", "closed")}
        if "timeout_ms" in asked:
            options["timeout"] = asked["timeout_ms"] / 1_000
        options["retry"] = asked.get("retry", True)
        if tls:
            options["tls"] = tg.Tls.from_files(
                tls.get("ca_file"), tls.get("cert_file"), tls.get("key_file")
            )
        if buffer is not None:
            names = ("max_events", "spool_dir", "batch", "flush_ms")
            given = {name: buffer[name] for name in names if buffer.get(name) is not None}
            options["buffer"] = tg.BufferOptions(**given)
        self.clients[asked["client"]] = self.make(asked["target"], options)
        return {}

    async def do_close(self, asked: Json) -> Json:
        """Close a client."""
        flushed = await now(self.client(asked).close(timeout=asked.get("timeout_ms", 5_000) / 1e3))
        return {"flushed": flushed}

    async def do_check_and_consume(self, asked: Json) -> Json:
        """Charge."""
        called = self.client(asked).check_and_consume(
            asked["tenant"], items_of(asked), **options_of(asked)
        )
        return decision_json(await now(called))

    async def do_check(self, asked: Json) -> Json:
        """Ask."""
        called = self.client(asked).check(asked["tenant"], items_of(asked), **options_of(asked))
        return decision_json(await now(called))

    async def do_get_quota(self, asked: Json) -> Json:
        """Read."""
        meters = asked.get("meters") or ()
        quota = await now(
            self.client(asked).quota(asked["tenant"], meters=meters, **options_of(asked))
        )
        return {
            "limits": limits_json(quota.limits),
            "plan": quota.plan,
            "catalog_version": quota.catalog_version,
        }

    async def do_batch_check_and_consume(self, asked: Json) -> Json:
        """Charge a list."""
        charges = [
            tg.Charge(each["tenant"], items_of(each), **options_of(each))
            for each in asked["requests"]
        ]
        called = self.client(asked).batch_check_and_consume(charges, **options_of(asked))
        return {"results": [result_json(each, decision_json) for each in await now(called)]}

    async def do_reserve(self, asked: Json) -> Json:
        """Reserve."""
        called = self.client(asked).reserve(asked["tenant"], items_of(asked), **options_of(asked))
        held = await now(called)
        if asked.get("as"):
            self.held[asked["as"]] = held
        return decision_json(held.decision) | {"reservation_id": held.reservation_id}

    async def do_commit(self, asked: Json) -> Json:
        """Commit."""
        options = options_of(asked)
        amounts = asked.get("amounts")
        if "handle" in asked:
            called = self.held[asked["handle"]].commit(amounts, **options)
        else:
            called = self.client(asked).commit(
                asked["tenant"], asked["reservation_id"], amounts or (), **options
            )
        return settlement_json(await now(called))

    async def do_release(self, asked: Json) -> Json:
        """Release."""
        options = options_of(asked)
        if "handle" in asked:
            called = self.held[asked["handle"]].release(**options)
        else:
            called = self.client(asked).release(asked["tenant"], asked["reservation_id"], **options)
        return settlement_json(await now(called))

    async def do_extend(self, asked: Json) -> Json:
        """Extend."""
        options = options_of(asked)
        ttl = options.pop("ttl", None)
        if "handle" in asked:
            called = self.held[asked["handle"]].extend(ttl, **options)
        else:
            called = self.client(asked).extend(
                asked["tenant"], asked["reservation_id"], ttl, **options
            )
        return {"outcome": (await now(called)).outcome.value}

    async def do_with_reserve(self, asked: Json) -> Json:
        """Work under a reservation."""
        entered = self.client(asked).reserve(asked["tenant"], items_of(asked), **options_of(asked))
        async with scope(entered) as held:
            await self.wait(asked.get("hold_ms", 0) / 1e3)
            if asked.get("actual") is not None:
                held.use(asked["actual"])
            if asked["work"] == "fail":
                raise WorkFailed("the work failed")
        return settlement_json(held.settlement)

    async def do_refund(self, asked: Json) -> Json:
        """Refund."""
        called = self.client(asked).refund(
            asked["tenant"], asked["event_id"], asked.get("amount", 0), **options_of(asked)
        )
        told = await now(called)
        return {
            "event_id": told.event_id,
            "amount": told.amount,
            "replayed": told.replayed,
            "operation_id": told.operation_id,
        }

    async def do_record(self, asked: Json) -> Json:
        """Record."""
        options = options_of(asked) | usage_options(asked)
        called = self.client(asked).record(
            asked["tenant"], asked["meter"], asked["amount"], **options
        )
        return recorded_json(await now(called))

    async def do_batch_record(self, asked: Json) -> Json:
        """Record a list."""
        usages = [
            tg.Usage(each["tenant"], each["meter"], each["amount"], **usage_options(each))
            for each in asked["requests"]
        ]
        told = await now(self.client(asked).batch_record(usages))
        return {"results": [result_json(each, recorded_json) for each in told]}

    async def do_buffer_record(self, asked: Json) -> Json:
        """Record without waiting."""
        event_id = self.client(asked).buffer.record(
            asked["tenant"], asked["meter"], asked["amount"], **usage_options(asked)
        )
        return {"event_id": event_id}

    async def do_flush(self, asked: Json) -> Json:
        """Send what is buffered."""
        timeout = asked.get("timeout_ms", 5_000) / 1e3
        return {"flushed": await now(self.client(asked).buffer.flush(timeout=timeout))}

    async def do_stats(self, asked: Json) -> Json:
        """Count."""
        stats = self.client(asked).stats()
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name in stats.__slots__
            for value in [getattr(stats, name)]
        }

    async def do_parallel(self, asked: Json) -> Json:
        """Do the same many times at once."""
        call = {"client": asked.get("client"), **asked["call"]}
        told = await self.every([lambda: self.answer(call)] * asked["n"])
        return {
            "results": [
                {name: value for name, value in each.items() if name != "id"} for each in told
            ]
        }

    async def do_cancel_call(self, asked: Json) -> Json:
        """Begin a call and cancel it."""
        call = {"client": asked.get("client"), **asked["call"]}
        return await self.cancelled(call, asked["after_ms"] / 1e3)

    @abstractmethod
    def make(self, target: str, options: Json) -> Any:
        """Make a client."""

    @abstractmethod
    async def wait(self, seconds: float) -> None:
        """Do nothing for so long."""

    @abstractmethod
    async def cancelled(self, call: Json, after_s: float) -> Json:
        """Begin a call and cancel it."""


class SyncDriver(Driver):
    """Drives `Client`; threads do what is to be done at once."""

    def make(self, target: str, options: Json) -> tg.Client:
        """Make a client."""
        return tg.Client(target, **options)

    def channel(self, target: str) -> grpc.Channel:
        """Open a channel for the bare stub."""
        return grpc.insecure_channel(target)

    async def every(self, works: Sequence[Work]) -> list[Any]:
        """Do each in a thread of its own."""
        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(lambda work: finished(work()), works))

    async def wait(self, seconds: float) -> None:
        """Do nothing for so long, as work under a reservation does."""
        threading.Event().wait(seconds)

    async def cancelled(self, call: Json, after_s: float) -> Json:
        """Cancel by a token, from another thread."""
        cancel = tg.Cancellation()
        timer = threading.Timer(after_s, cancel.cancel)
        timer.start()
        try:
            return await self.do(call | {"cancel": cancel})
        finally:
            timer.join()

    def run(self) -> None:
        """Answer line by line."""
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["do"] == "bye":
                return
            say(finished(self.answer(asked)))


class AsyncDriver(Driver):
    """Drives `AsyncClient`; tasks do what is to be done at once."""

    def make(self, target: str, options: Json) -> tg.AsyncClient:
        """Make a client."""
        return tg.AsyncClient(target, **options)

    def channel(self, target: str) -> grpc.aio.Channel:
        """Open a channel for the bare stub."""
        return grpc.aio.insecure_channel(target)

    async def every(self, works: Sequence[Work]) -> list[Any]:
        """Do each in a task of its own."""
        return await asyncio.gather(*(work() for work in works))

    async def wait(self, seconds: float) -> None:
        """Do nothing for so long, as work under a reservation does."""
        await asyncio.sleep(seconds)

    async def cancelled(self, call: Json, after_s: float) -> Json:
        """Cancel the task."""
        task = asyncio.ensure_future(self.do(call))
        asyncio.get_running_loop().call_later(after_s, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise Cancelled("cancelled") from None

    async def run(self) -> None:
        """Answer line by line; what goes on in the background goes on while it waits."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            if asked["do"] == "bye":
                return
            say(await self.answer(asked))


def main() -> int:
    """Answer each line of standard input with one on standard output, until told to end."""
    parser = argparse.ArgumentParser(description="Drives the client through the shared cases.")
    parser.add_argument("--mode", choices=("sync", "asyncio"), default="sync")
    if parser.parse_args().mode == "sync":
        SyncDriver().run()
    else:
        asyncio.run(AsyncDriver().run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
