"""RQ: a decorator for functions that are enqueued.

Guarantees that a refused job's function is not called. Refuses to know what functions do; one that
is called outside a worker is no job, and is not charged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import rq

from .errors import TallygateError
from .metering.cost import Ending
from .metering.current import at_hand, current_cost
from .metering.jobs import JobCall, JobRefused, JobRules, failure_of
from .metering.till import Till

if TYPE_CHECKING:
    from .client import Client

__all__ = ["JobCall", "JobRefused", "JobRules", "current_cost", "metered_job"]

P = ParamSpec("P")
T = TypeVar("T")

RETRIES = 10
"""How often a refused job is tried again unless the rules say so; RQ wants a number."""


def metered_job(
    client: Client | Callable[[], Client], rules: JobRules
) -> Callable[[Callable[P, T]], Callable[P, T | rq.Retry]]:
    """Charge the jobs of a function. A refused one is retried by RQ, which needs its scheduler."""
    till = Till(client)

    def around(function: Callable[P, T]) -> Callable[P, T | rq.Retry]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T | rq.Retry:
            job = rq.get_current_job()
            question = rules.question_of(_job(job, args, kwargs)) if job is not None else None
            if question is None:
                return function(*args, **kwargs)
            try:
                cost = till.open(question)
            except TallygateError as error:
                wait = rules.wait_of(error)
                retries = RETRIES if rules.retries is None else rules.retries
                tried = (job.number_of_retries or 0) if job is not None else 0
                if wait is None or tried >= retries:
                    raise failure_of(error) from error
                return rq.Retry(max=retries, interval=wait)
            ending = Ending.FAILED
            try:
                with at_hand(cost):
                    result = function(*args, **kwargs)
                ending = Ending.COMPLETE
                return result
            finally:
                till.settle(cost, ending, charged=True)

        return called

    return around


def _job(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobCall:
    # A job that returns `Retry` counts up the one, a job that raises counts down the other.
    attempt = f"{job.number_of_retries or 0}.{job.retries_left or 0}"
    meta = job.get_meta(refresh=False)
    return JobCall("rq", str(job.id), attempt, str(job.func_name), args, kwargs, meta, job)
