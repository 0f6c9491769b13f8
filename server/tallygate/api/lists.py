"""Lists of requests: each converts, is answered or fails by itself.

Guarantees: one result per request, in order, whatever its neighbours are.
Refuses to know: which requests.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from tallygate.api.status import Unexpected, shown
from tallygate.domain.errors import TallygateError

log = structlog.get_logger(__name__)

Message = TypeVar("Message")
Request = TypeVar("Request")
Result = TypeVar("Result")


async def answer_each(
    messages: Sequence[Message],
    convert: Callable[[Message], Request],
    answer: Callable[[Sequence[Request]], Awaitable[Sequence[Result | TallygateError]]],
) -> list[Result | TallygateError]:
    """Convert each message, answer those that convert in one list, and put all in order."""
    converted: list[Request | TallygateError] = []
    for message in messages:
        try:
            converted.append(convert(message))
        except TallygateError as error:
            converted.append(error)
    good = [request for request in converted if not isinstance(request, TallygateError)]
    answers = iter(await answer(good) if good else ())
    return [
        visible(request if isinstance(request, TallygateError) else next(answers))
        for request in converted
    ]


def visible(result: Result | TallygateError) -> Result | TallygateError:
    """Return a result as a caller may see it; what was not expected of an item is logged."""
    if not isinstance(result, TallygateError):
        return result
    told = shown(result)
    if isinstance(told, Unexpected) and told is not result:
        log.error("item_failed", reference=told.reference, exc_info=result)
    return told
