"""Celery and RQ with real workers: refused jobs wait, retried ones are charged once."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import rq
from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis import Redis
from rq.worker import SimpleWorker
from tallygate_client import Client, TallygateError
from tallygate_client.celery import JobRefused, MeteredTask, current_cost
from tallygate_client.metering.jobs import JobCall, JobRules
from tallygate_client.rq import metered_job

from tallygate.adapters.embedded import EmbeddedRedis
from tests.middleware.world import ABSENT, REQUESTS_MAX, World

RULES = JobRules(tenant="org", cost={"requests": 1, "tokens": 100})
WAIT_S = 10.0


def count_celery(org: str, tokens: int) -> int:
    """Say what it came to."""
    current_cost().set("tokens", tokens)
    return tokens


def fails_celery(org: str) -> None:
    """Raise."""
    raise ValueError


def again(task: Any, org: str) -> int:
    """Succeed at the third attempt."""
    if task.request.retries < 2:
        raise task.retry(countdown=0)
    return int(task.request.retries)


@pytest.fixture(scope="module")
def app(metered_world: World) -> Iterator[Celery]:
    """Celery with a worker in a thread, its broker in memory."""
    made = Celery("tests", broker="memory://", backend="cache+memory://", task_cls=MeteredTask)
    made.conf.update(
        tallygate={"client": lambda: Client(metered_world.address, timeout=10), "rules": RULES},
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=False,
    )

    at_once = JobRules(tenant="org", cost={"requests": 1}, refused="fail")
    made.task(name="count")(count_celery)
    made.task(name="fails")(fails_celery)
    made.task(name="again", bind=True)(again)
    made.task(name="at_once", tallygate=at_once)(fails_celery)
    with start_worker(made, perform_ping_check=False, loglevel="CRITICAL", shutdown_timeout=WAIT_S):
        yield made


def test_celery_jobs_are_charged_by_what_they_came_to(
    app: Celery, metered_world: World, tenant: str
) -> None:
    """A job commits what it said; one that raised costs nothing; one that retried costs once."""
    assert app.tasks["count"].delay(org=tenant, tokens=7).get(WAIT_S) == 7
    metered_world.settles(tenant, 7, "tokens")
    metered_world.settles(tenant, 1)
    with pytest.raises(ValueError):
        app.tasks["fails"].delay(org=tenant).get(WAIT_S)
    metered_world.settles(tenant, 1)
    assert app.tasks["again"].delay(org=tenant).get(WAIT_S) == 2
    metered_world.settles(tenant, 2)
    # A plain call is no job.
    with pytest.raises(LookupError):
        app.tasks["count"](org=tenant, tokens=1)


def test_refused_celery_jobs_fail_or_wait(app: Celery, metered_world: World, tenant: str) -> None:
    """At the limit a job fails, where the rules say so, else it is put off as long as it takes."""
    metered_world.client.record(tenant, "requests", REQUESTS_MAX)
    with pytest.raises(JobRefused, match="requests-monthly"):
        app.tasks["at_once"].delay(org=tenant).get(WAIT_S)
    waiting = app.tasks["count"].delay(org=tenant, tokens=1)
    metered_world.eventually(lambda: waiting.state == "RETRY")
    waiting.revoke()


CLIENTS: list[Client] = []


def client() -> Client:
    """Return the client of the jobs below, which RQ finds by their names."""
    return CLIENTS[0]


@metered_job(client, RULES)
def count(org: str, tokens: int) -> int:
    """Say what it came to."""
    current_cost().set("tokens", tokens)
    return tokens


@metered_job(client, RULES)
def fails(org: str) -> None:
    """Raise."""
    raise ValueError


def test_rq_jobs_are_charged_and_put_off(
    redis_server: EmbeddedRedis, metered_world: World, tenant: str
) -> None:
    """A job commits what it said, one that raised costs nothing, a refused one is put off."""
    CLIENTS[:] = [metered_world.client]
    with Redis.from_url(redis_server.url) as connection:
        queue = rq.Queue("metered", connection=connection)
        worker = SimpleWorker([queue], connection=connection)
        first = queue.enqueue(count, org=tenant, tokens=7)
        failed = queue.enqueue(fails, org=tenant, retry=rq.Retry(max=1))
        worker.work(burst=True, logging_level="CRITICAL")
        assert first.return_value() == 7
        assert failed.get_status(refresh=True).value == "failed"
        metered_world.settles(tenant, 7, "tokens")
        metered_world.settles(tenant, 1)
        metered_world.client.record(tenant, "requests", REQUESTS_MAX)
        waiting = queue.enqueue(count, org=tenant, tokens=1)
        worker.work(burst=True, logging_level="CRITICAL")
        assert waiting.get_status(refresh=True).value == "scheduled"
        connection.delete(*connection.keys("rq:*"))


def test_attempts_are_named_once() -> None:
    """What is given back is named by the attempt, what never is by the job alone."""
    job = JobCall("rq", "job", "1.0", "work", (), {"org": "acme"}, {}, None)
    consume = JobRules(tenant="org", cost={"requests": 1}, mode="consume")
    kept = replace(consume, refund_failures=False)
    named = [rules.question_of(job) for rules in (RULES, consume, kept)]
    assert [each.operation_id for each in named if each] == ["rq:job:1.0", "rq:job:1.0", "rq:job"]
    long = JobCall("rq", "j" * 200, "1.0", "work", (), {"org": "acme"}, {}, None)
    question = RULES.question_of(long)
    assert question is not None
    assert len(question.operation_id or "") == 64


def test_an_absent_sidecar_puts_jobs_off() -> None:
    """Without an answer a job waits as the rules say, and with what is no use waiting for fails."""
    absent = Client(ABSENT, timeout=0.2, retry=False)
    with absent, pytest.raises(TallygateError) as gone:
        absent.check("acme", {"requests": 1})
    assert RULES.wait_of(gone.value) in {1, 5}
    assert JobRules(tenant="org", refused="fail").wait_of(gone.value) is None
