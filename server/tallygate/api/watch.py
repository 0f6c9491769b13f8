"""WatchQuota: where a tenant stands, as it changes, over one stream.

Guarantees: a stream begins with a snapshot; its watch ends with it, whoever ends it.
Refuses to know: how changes are found, and how errors are told.
"""

from collections.abc import AsyncGenerator
from typing import Final

from tallygate.api import convert
from tallygate.flow.watch import Cause, Update, Watches
from tallygate.gen.v1 import quota_pb2

_CAUSES: Final = {
    Cause.SNAPSHOT: quota_pb2.WATCH_CAUSE_SNAPSHOT,
    Cause.CHANGED: quota_pb2.WATCH_CAUSE_CHANGED,
    Cause.CROSSED: quota_pb2.WATCH_CAUSE_CROSSED,
}


async def watching(
    watches: Watches, request: quota_pb2.WatchQuotaRequest
) -> AsyncGenerator[quota_pb2.WatchQuotaResponse, None]:
    """Yield a snapshot and then each change. Raises `InvalidField` and what ends the watch."""
    question = convert.quota_request(request)
    async with watches.open(question) as watch:
        async for update in watch.updates():
            yield _message(update)


def _message(update: Update) -> quota_pb2.WatchQuotaResponse:
    standing = convert.quota_response(update.result)
    return quota_pb2.WatchQuotaResponse(
        limits=standing.limits,
        cause=_CAUSES[update.cause],
        plan=standing.plan,
        catalog_version=standing.catalog_version,
    )
