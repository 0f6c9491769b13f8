"""What both kinds of buffer share: the queue under its lock, the spool, counts and hooks."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import requests, results
from .arguments import usage_of
from .calls import Call, Core, quietly
from .errors import BufferFull, Closed, Internal, SpoolFailed, TallygateError
from .forks import begin_anew_when_forked
from .gen.v1 import quota_pb2, usage_pb2
from .options import BufferOptions
from .queueing import Queue, Sending
from .spool import Spool, Syncing
from .spool_format import Entry

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .values import UsageOptions

logger = logging.getLogger("tallygate_client")

# Hundreds of events synced to a disk take longer than one decision; nobody waits for them.
TIMEOUT_S = 10.0
CLOSE_S = 5.0


class Intake(ABC):
    """Takes events at once, and holds them until they are sent."""

    def __init__(self, core: Core, options: BufferOptions) -> None:
        self._core = core
        self._options = options
        self._hooks = core.options.hooks
        self._begin()
        self._open_spool()
        begin_anew_when_forked(self)
        atexit.register(self._at_exit)

    def record(self, tenant: str, meter: str, amount: int, **options: Unpack[UsageOptions]) -> str:
        """Take an event, without waiting for anybody, and return its id.

        Safe from any thread. With a spool the event is on the disk before this returns.

        Raises:
            InvalidRequest: a field cannot be sent as it is.
            BufferFull: there is no room; the event was not taken.
            SpoolFailed: the disk refused; the event was not taken.
            SpoolInUse: this is a forked child, and the spool is its parent's.
            Closed: the client is closed.
        """
        usage, _ = usage_of(tenant, meter, amount, options)
        request = requests.record_usage(usage, dated=True)
        self.put_events([request])
        return request.event_id

    @property
    def pending(self) -> int:
        """How many entries wait or are on their way."""
        with self._lock:
            return self._queue.pending

    @property
    def spool_bytes(self) -> int:
        """What the spool takes on the disk."""
        with self._lock:
            return self._spool.size if self._spool is not None else 0

    def put_events(self, events: Sequence[usage_pb2.RecordUsageRequest]) -> None:
        """Take events, all of them or none."""
        self._put([Entry(each) for each in events])

    def put_commit(
        self,
        request: quota_pb2.CommitRequest,
        instead: Sequence[usage_pb2.RecordUsageRequest],
    ) -> None:
        """Take a commit, and what to record should its reservation be gone by then."""
        self._put([Entry(request, tuple(instead))])

    def forked(self) -> None:
        """Begin anew, empty: what was buffered is the parent's to send."""
        if self._spool is not None:
            self._spool.forked()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._queue = Queue(self._options)
        self._spool: Spool | None = None
        self._syncing: Syncing | None = None
        self._closed = False

    def _open_spool(self) -> None:
        if self._options.spool_dir is None or self._spool is not None:
            return
        try:
            spool = Spool(
                Path(self._options.spool_dir),
                bytes_max=self._options.spool_max_bytes,
                sync_each=self._options.spool_sync_ms == 0,
            )
        except OSError as error:
            raise SpoolFailed(f"the spool cannot be opened: {error}", field="spool_dir") from error
        self._core.counts.add("spool_torn", spool.torn)
        now = time.monotonic()
        for entry, segment in spool.found:
            self._queue.accept([entry], segment, now)
        spool.found.clear()
        self._spool = spool
        if self._options.spool_sync_ms:
            self._syncing = Syncing(spool, self._lock, self._options.spool_sync_ms / 1e3)

    def _put(self, entries: Sequence[Entry]) -> None:
        try:
            with self._lock:
                if self._closed:
                    raise Closed("the client is closed")
                self._open_spool()
                self._queue.check_room(len(entries))
                now = time.monotonic()
                segment = self._spool.append(entries, now) if self._spool is not None else None
                if self._syncing is not None:
                    self._syncing.wake()
                changed = self._queue.accept(entries, segment, now)
                pending = self._queue.pending
                if changed:
                    self._wake()
        except (BufferFull, SpoolFailed):
            self._core.counts.add("refused_full", len(entries))
            raise
        self._core.counts.add("recorded", len(entries))
        self._tell_pending(pending)

    def _finish(self, outcome: Any) -> None:
        """Hear what the request on its way came to."""
        with self._lock:
            if self._closed:
                # What was on its way has been reported, or is in the spool for the next process.
                return
            told = self._queue.finished(outcome, time.monotonic())
            for segment in told.done:
                if self._spool is not None:
                    self._spool.done(segment)
            pending = self._queue.pending
        counts = self._core.counts
        counts.add("sent", told.sent)
        counts.add("replayed", told.replayed)
        counts.add("retries", told.retries)
        for entry, error in told.rejected:
            self._reject(entry, error)
        self._tell_pending(pending)

    def _end(self) -> None:
        """Take no more and let go of the spool; what ends with the process is told."""
        with self._lock:
            self._closed = True
            syncing, self._syncing = self._syncing, None
            spool, self._spool = self._spool, None
            left = self._queue.left()
        if syncing is not None:
            syncing.close()
        if spool is not None:
            spool.close()
        atexit.unregister(self._at_exit)
        if left:
            logger.warning("closed with %d events that were not sent", len(left))
        for entry in left:
            self._reject(entry, Closed("closed before it could be sent"))

    def _call(self, sending: Sending) -> Call[Any]:
        """Return the call that sends a request."""
        timeout = max(TIMEOUT_S, self._core.options.timeout_s)
        commit = sending.commit
        if commit is None:
            return self._core.batch_record(sending.events, timeout=timeout)
        return Call(
            "Commit",
            commit,
            lambda reply: results.settlement_of(reply, commit.operation_id),
            operation_id=commit.operation_id,
            timeout=timeout,
        )

    def _outcome(self, error: Exception) -> TallygateError:
        """Return what a request that raised came to; a fault of ours must not stop the rest."""
        if isinstance(error, TallygateError):
            return error
        logger.error("a request of the buffer failed", exc_info=error)
        # With a reason, as trying again would come to the same.
        return Internal(f"{type(error).__name__}: {error}", reason="CLIENT_FAULT")

    def _at_exit(self) -> None:
        """Tell what ends with the process, as nobody has closed the client."""
        self._end()

    @abstractmethod
    def _wake(self) -> None:
        """See that what sends looks anew, under the lock."""

    def _reject(self, entry: Entry, error: TallygateError) -> None:
        self._core.counts.add("rejected")
        if self._hooks.on_rejected is not None:
            quietly(self._hooks.on_rejected, entry.message, error)

    def _tell_pending(self, pending: int) -> None:
        if self._hooks.on_buffer is not None:
            quietly(self._hooks.on_buffer, pending)
