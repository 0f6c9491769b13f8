"""A labelled metric's children, found by a plain dict look-up.

Guarantees: a child is resolved once, as hot paths need; label sets are bounded.
Refuses to know any metric.

A labelled metric is a `Children`, indexed by its label values, as in
`metrics.decisions["allowed"].inc()`.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

CHILDREN_MAX = 1_000
"""Label sets of one metric. More means that a label took values from outside: a fault of ours."""

Child = TypeVar("Child", Counter, Gauge, Histogram)


class Children(dict[str | tuple[str, ...], Child], Generic[Child]):
    """A labelled metric's children by label value, or by tuple where there are several labels."""

    def __init__(self, metric: Child) -> None:
        super().__init__()
        self._metric: Child = metric

    def __missing__(self, key: str | tuple[str, ...]) -> Child:
        if len(self) >= CHILDREN_MAX:
            raise ValueError(f"{self._metric} has {CHILDREN_MAX} label sets; {key!r} is too many")
        values = (key,) if isinstance(key, str) else key
        child: Child = self._metric.labels(*values)
        self[key] = child
        return child

    def replace(self, values: Mapping[str, float]) -> None:
        """Set gauges to exactly these values and forget every other label value.

        For figures that are read as a whole, so that a destination that is gone is not shown
        with its last figure for ever.
        """
        for key in [key for key in self if key not in values]:
            self._metric.remove(*((key,) if isinstance(key, str) else key))
            del self[key]
        for name, value in values.items():
            gauge = self[name]
            assert isinstance(gauge, Gauge)
            gauge.set(value)
