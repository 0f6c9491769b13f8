"""Celery: a class of tasks whose jobs are charged.

    app = Celery(..., task_cls=MeteredTask)
    app.conf.tallygate = {"client": Client, "rules": JobRules(tenant="tenant", cost={"jobs": 1})}

Guarantees that a refused job's function is not called. Refuses to know what tasks do; a task that
is called as a function is no job, and is not charged.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import celery

from .errors import TallygateError
from .metering.cost import Ending
from .metering.current import at_hand, current_cost
from .metering.jobs import JobCall, JobRefused, JobRules, failure_of
from .metering.till import Till

__all__ = ["JobCall", "JobRefused", "JobRules", "MeteredTask", "current_cost"]

_TILLS: WeakKeyDictionary[Any, Till] = WeakKeyDictionary()


class MeteredTask(celery.Task):  # type: ignore[misc]  # celery ships no types
    """A task whose jobs are charged by `tallygate` of the task, else of the app's configuration.

    A job that raises is not charged; one that retries itself neither, but for the attempt that
    succeeds. Tasks find their cost by `current_cost()`.
    """

    abstract = True
    tallygate: JobRules | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do the job, if it is granted."""
        configured = self.app.conf.get("tallygate") or {}
        rules = self.tallygate or configured.get("rules")
        if rules is None or self.request.called_directly:
            return self.run(*args, **kwargs)
        till = _TILLS.get(self.app) or _TILLS.setdefault(self.app, Till(configured["client"]))
        question = rules.question_of(self._job(args, kwargs))
        if question is None:
            return self.run(*args, **kwargs)
        try:
            cost = till.open(question)
        except TallygateError as error:
            wait = rules.wait_of(error)
            failure = failure_of(error)
            if wait is None:
                raise failure from error
            raise self.retry(countdown=wait, max_retries=rules.retries, exc=failure) from error
        ending = Ending.FAILED
        try:
            with at_hand(cost):
                result = self.run(*args, **kwargs)
            ending = Ending.COMPLETE
            return result
        finally:
            # Celery's own `Retry`, `Ignore` and `Reject` are exceptions too.
            till.settle(cost, ending, charged=True)

    def _job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobCall:
        request = self.request
        return JobCall(
            "celery",
            str(request.id),
            str(request.retries),
            str(self.name),
            args,
            kwargs,
            request.headers or {},
            request,
        )
