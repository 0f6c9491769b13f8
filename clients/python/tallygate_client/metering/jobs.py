"""Jobs of a queue: what is asked for an attempt, and what a refusal makes of it.

Guarantees that a job is charged once, however often it is tried or delivered, within the service's
memory of operations. Refuses to know queues.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tallygate_client.errors import QuotaExceeded, TallygateError

from .answers import ABSENT
from .rules import Question, Rules

NAME_MAX = 120
"""What an operation id has room for, with something to spare for what is made of it."""


class JobRefused(Exception):
    """A job was refused for good; its cause is `QuotaExceeded`. It travels as its text alone."""


@dataclass(frozen=True, slots=True)
class JobCall:
    """An attempt at a job, as the rules see it.

    Attributes:
        queue: the kind of queue, as `celery`.
        job_id: the same over all attempts.
        attempt: another for each attempt, the same where one is delivered again.
        name: what is to be done.
        args: by place.
        kwargs: by name.
        headers: what travels beside them.
        native: the queue's own: Celery's request, RQ's job.
    """

    queue: str
    job_id: str
    attempt: str
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, Any]
    native: Any

    def header(self, name: str) -> str | None:
        """Return what travels beside the job by this name, else the argument of this name."""
        value = self.headers.get(name, self.kwargs.get(name))
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRules(Rules[JobCall]):
    """What hooks of job queues are told besides.

    Attributes:
        refused: what becomes of a refused job: `retry` after the wait that the service gives,
            `fail` with `JobRefused`. What can never pass fails.
        retries: how often it may be refused; the queue's own bound unless given.
        wait_s: how long to wait where the service gives no time, as when it is absent.
    """

    refused: Literal["retry", "fail"] = "retry"
    retries: int | None = None
    wait_s: float = 5.0

    def question_of(self, job: JobCall) -> Question | None:
        """Return what to ask for an attempt; None where it is exempt, or costs nothing."""
        if self.exempt is not None and self.exempt(job):
            return None
        question = self.question(job, self.tenant_of(job), self.cost_of(job))
        if question is None or question.operation_id:
            return question
        # What an attempt that failed has given back, the next has to ask for anew; where nothing is
        # given back, all attempts are one charge.
        given_back = self.mode == "reserve" or self.refund_failures
        parts = [job.queue, job.job_id, *([job.attempt] if given_back else [])]
        return replace(question, operation_id=_short(":".join(parts)))

    def wait_of(self, error: TallygateError) -> int | None:
        """Return the whole seconds to wait before another attempt; None where none is due."""
        if self.refused == "fail":
            return None
        if isinstance(error, QuotaExceeded):
            wait = error.retry_after
            return None if wait is None else max(1, math.ceil(wait))
        if isinstance(error, ABSENT):
            return max(1, math.ceil(error.retry_after or self.wait_s))
        return None


def failure_of(error: TallygateError) -> Exception:
    """Return what a job fails with, in a form that any queue's results can hold."""
    return JobRefused(error.message) if isinstance(error, QuotaExceeded) else error


def _short(name: str) -> str:
    if len(name) <= NAME_MAX and name.isascii() and name.isprintable():
        return name
    return hashlib.sha256(name.encode()).hexdigest()
