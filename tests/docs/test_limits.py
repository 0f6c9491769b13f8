"""docs/limits.md speaks of every kind of limit, and of nothing else."""

import re

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.domain.catalog import LimitKind
from tallygate.domain.sliding import BUCKETS

from .pages import blocks, pages, rows

PAGE = "docs/limits.md"
KINDS = {kind.value for kind in LimitKind}


def test_the_table_has_every_kind() -> None:
    """The guarantees name each kind once, and no other."""
    named = [cells[0].strip("`") for cells in rows(pages()[PAGE])]
    assert sorted(named) == sorted(KINDS)


def test_every_kind_has_its_section() -> None:
    """Each kind is explained under a heading of its own."""
    assert set(re.findall(r"^## `(\w+)`$", pages()[PAGE], re.MULTILINE)) == KINDS


def test_the_error_of_a_sliding_limit_is_that_of_its_buckets() -> None:
    """The error that the page states is one bucket, and its rounding."""
    assert f"D + D/{BUCKETS} + {BUCKETS + 1} µs" in pages()[PAGE]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_its_example_is_a_limit(kind: str) -> None:
    """Each kind's example is taken by a catalog."""
    (shown,) = [each.text for each in blocks("yaml") if each.page == PAGE
                and f"kind: {kind}" in each.text]  # fmt: skip
    text = "version: 1\nmeters: {images: {}, requests: {}, jobs: {}, credits: {}}\n"
    document = parse(f"{text}plans:\n  free:\n    limits:\n      - {shown}")
    assert kind in str(document)
