"""Exemplars: a bucket of the calls' duration names a trace, in OpenMetrics and nowhere else."""

import math
from collections.abc import Iterable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.samples import Exemplar, Sample

from tallygate.adapters.prometheus.merging import OPEN_METRICS, Departed, merged, parsed
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import EdgeMetrics
from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages
from tallygate.adapters.prometheus.timings import SERIES_MAX, Timings
from tallygate.api.ops_pages import Pages, Readiness

FIRST, SECOND = "1" * 32, "2" * 32
NAME = "tallygate_rpc_duration_seconds"
METHOD = "tallygate.v1.QuotaService/CheckAndConsume"


def open_metrics(text: str) -> Iterable[Metric]:
    """Return the families of a page, by the strict parser."""
    read: Any = parser.text_string_to_metric_families
    return cast(Iterable[Metric], read(text))


def as_open_metrics(registry: CollectorRegistry) -> bytes:
    """Return a page."""
    write: Any = exposition.generate_latest
    return cast(bytes, write(registry))


def counted(*calls: tuple[float, str]) -> Metrics:
    """Return the metrics of a process that has answered calls, some of them recorded."""
    metrics = Metrics(CollectorRegistry(), version="1")
    edge = EdgeMetrics(metrics)
    for seconds, trace in calls:
        edge.calls_started(1)
        edge.calls_ended(METHOD, "OK", (seconds,))
        if trace:
            edge.call_recorded(METHOD, "OK", seconds, trace)
    return metrics


def shown(families: list[Metric]) -> dict[str, Exemplar]:
    """Return the exemplars of the calls' duration by their buckets."""
    (family,) = [each for each in families if each.name == NAME]
    return {
        each.labels["le"]: each.exemplar for each in family.samples if each.exemplar is not None
    }


def page(registry: CollectorRegistry, accept: str) -> tuple[str, str]:
    """Return the type and the text of `/metrics` as it is asked for."""
    pages = Pages(registry, lambda: Readiness(True, {}), lambda: None)
    head, _, body = pages.answer(
        f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode()
    ).partition(b"\r\n\r\n")
    kind = head.decode().split("Content-Type: ")[1].split("\r\n")[0]
    return kind, body.decode()


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize("accept", [OPEN_METRICS, PROMETHEUS])
def test_open_metrics_have_exemplars(accept: str) -> None:
    """All metrics parse by the strict parser; the bucket of a recorded call names its trace."""
    kind, text = page(counted((0.004, FIRST), (0.004, ""), (9.0, SECOND)).registry, accept)
    assert kind.startswith("application/openmetrics-text")
    found = shown([*open_metrics(text)])
    assert {bound: each.labels for bound, each in found.items()} == {
        "0.005": {"trace_id": FIRST},
        "+Inf": {"trace_id": SECOND},
    }
    assert [each.value for each in found.values()] == [0.004, 9.0]


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "text/plain;version=0.0.4"])
def test_plain_text_stays_as_it_was(accept: str) -> None:
    """It has no exemplars, and not a byte more for what was recorded."""
    calls = (0.004, 9.0)
    without = page(counted(*((each, "") for each in calls)).registry, accept)
    found = page(counted(*((each, FIRST) for each in calls)).registry, accept)
    assert found[0].startswith("text/plain")

    def own(text: str) -> list[str]:
        return [line for line in text.splitlines() if NAME in line]

    assert own(found[1]) == own(without[1])
    assert [*plain(found[1])]


def test_every_metric_is_open_metrics() -> None:
    """The strict parser takes whatever a process shows."""
    text = page(counted().registry, OPEN_METRICS)[1]
    names = {family.name for family in open_metrics(text)}
    assert {family.name for family in plain(page(counted().registry, "*/*")[1])} == names


def test_processes_together_keep_the_newest() -> None:
    """Of a bucket, the exemplar that was made last, whichever process it is of; sums are sums."""
    one, other = counted((0.004, FIRST)), counted((0.0041, SECOND), (0.1, FIRST))
    texts = [as_open_metrics(each.registry).decode() for each in (one, other)]
    for order in (texts, texts[::-1]):
        families = merged(parsed(str(number), text) for number, text in enumerate(order))
        found = shown(families)
        assert (found["0.005"].labels, found["0.1"].labels) == (
            {"trace_id": SECOND},
            {"trace_id": FIRST},
        )
        (family,) = [each for each in families if each.name == NAME]
        counts = [each.value for each in family.samples if each.name == f"{NAME}_count"]
        assert counts == [3]


def test_a_group_shows_those_of_its_processes() -> None:
    """Also of one that has gone; what the group shows parses again."""
    pages = GroupPages(GroupMetrics(CollectorRegistry()))
    own = counted((0.004, FIRST))
    pages.join("0", lambda: as_open_metrics(own.registry).decode())
    registry = CollectorRegistry()
    registry.register(pages)
    assert shown([*open_metrics(page(registry, OPEN_METRICS)[1])])["0.005"].labels == {
        "trace_id": FIRST
    }
    pages.leave("0")
    assert shown([*open_metrics(page(registry, OPEN_METRICS)[1])])["0.005"].value == 0.004


def test_those_that_left_are_summed_with_exemplars() -> None:
    """What is kept of processes that are gone keeps their last exemplars."""
    gone = Departed()
    gone.add(parsed("0", as_open_metrics(counted((0.004, FIRST)).registry).decode()))
    assert shown([*gone.source.families])["0.005"].labels == {"trace_id": FIRST}


def test_exemplars_are_bounded() -> None:
    """No more label sets have exemplars than may have figures."""
    timings = Timings("t_seconds", "T.", ("label",), (1.0,))
    for number in range(SERIES_MAX + 5):
        timings.exemplify((str(number),), 0.5, FIRST)
    assert len(timings._exemplars) == SERIES_MAX


def test_a_bound_belongs_to_its_bucket() -> None:
    """An exemplar is in the bucket that its observation is counted in, bounds included."""
    timings = Timings("t_seconds", "T.", ("label",), (1.0, 2.0))
    for seconds in (1.0, 2.0, 2.5):
        timings.observe(("a",), (seconds,))
        timings.exemplify(("a",), seconds, FIRST)
    (family,) = timings.collect()
    samples: list[Sample] = family.samples
    below = -math.inf
    for each in samples:
        if each.exemplar is not None:
            bound = float(each.labels["le"])
            assert below < each.exemplar.value <= bound
            below = bound
    assert below == math.inf
