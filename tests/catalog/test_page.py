"""The catalog's page shows a catalog that works, and names what the format has."""

import re
from pathlib import Path

import pytest

from tallygate.adapters.catalog import document, limits, meters
from tallygate.adapters.catalog.document import parse
from tallygate.domain.catalog import Aggregation, LatePolicy, LimitKind, OnExceed, OnOutage
from tallygate.domain.window import Period

PAGE = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text()


def example() -> str:
    """Return the page's one YAML block."""
    (found,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_example_is_good() -> None:
    """The document shown can be applied."""
    parsed = parse(example())
    assert set(parsed.catalog.plans) == {"free", "pro"}
    assert len(parsed.tenants) == 2
    assert len(parsed.catalog.destinations) == 2


KEYS = {
    *document._ROOT,
    *meters._METER,
    *meters._WEIGHT,
    *document._PLAN,
    *limits._LIMIT,
    *document._TENANT,
    *limits._OVERRIDE,
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_example_has_every_key(key: str) -> None:
    """Whoever copies the example has seen all there is."""
    assert re.search(rf"\b{key}:", example())


@pytest.mark.parametrize(
    "word", [*Aggregation, *LatePolicy, *LimitKind, *OnExceed, *OnOutage, *Period]
)
def test_the_page_names_every_choice(word: str) -> None:
    """No choice is a secret."""
    assert re.search(rf"\b{word}\b", PAGE)
