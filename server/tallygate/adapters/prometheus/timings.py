"""A histogram that takes many observations at once.

Guarantees: shows what the library's own would, by what is observed.
Refuses to know: what is timed.

The library's takes two locks for each observation, and looks its bucket up one by one.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

# As many label sets as any metric may have: more mean that a label takes values from outside.
SERIES_MAX: Final = 1_000

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Timings(Collector):
    """Seconds by label values. One thread observes; another that collects may see half a turn."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self.name: Final = name
        self.labels: Final = tuple(labels)
        self._text = text
        self._buckets = tuple(buckets)
        self._shown = [*map(floatToGoString, buckets), "+Inf"]
        # The observations of each bucket, the last one's above all bounds; and their sum.
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        # By label values and bucket, the newest call that was recorded.
        self._exemplars: dict[tuple[str, ...], dict[int, Exemplar]] = {}

    def observe(self, values: tuple[str, ...], seconds: Iterable[float]) -> None:
        """Take observations of one set of label values. Raises ValueError for too many sets."""
        counts = self._counts.get(values)
        if counts is None:
            if len(self._counts) >= SERIES_MAX:
                raise ValueError(f"{self.name} has {SERIES_MAX} label sets; {values!r} is one more")
            counts = self._counts[values] = [0] * len(self._shown)
        total = 0.0
        for each in seconds:
            counts[bisect_left(self._buckets, each)] += 1
            total += each
        self._sums[values] = self._sums.get(values, 0.0) + total

    def exemplify(self, values: tuple[str, ...], seconds: float, trace: str) -> None:
        """Have the bucket of an observation show the trace that it was made in."""
        if values not in self._counts and len(self._exemplars) >= SERIES_MAX:
            return
        of_buckets = self._exemplars.setdefault(values, {})
        at = bisect_left(self._buckets, seconds)
        of_buckets[at] = Exemplar({"trace_id": trace}, seconds, time.time())

    def register(self, registry: CollectorRegistry) -> "Timings":
        """Be shown by the registry."""
        registry.register(self)
        return self

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield what it is, without figures."""
        yield HistogramMetricFamily(self.name, self._text, labels=self.labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield all figures."""
        family = HistogramMetricFamily(self.name, self._text, labels=self.labels)
        for values, counts in [*self._counts.items()]:
            below, buckets = 0, list[Bucket]()
            exemplars = self._exemplars.get(values, {})
            for at, (shown, count) in enumerate(zip(self._shown, counts, strict=True)):
                below += count
                exemplar = exemplars.get(at)
                known = (shown, below) if exemplar is None else (shown, below, exemplar)
                buckets.append(known)
            family.add_metric(values, buckets, self._sums.get(values, 0.0))
        yield family
