"""Each part of a fault has tests, which exist and are run with those of the promises."""

import pytest

from tests.chaos.fault_rows import REQUIRED, ROWS
from tests.chaos.guarantees import nodes_of
from tests.chaos.promises import PROMISES
from tests.chaos.row_parts import ROW_PARTS


@pytest.mark.parametrize("row", sorted(ROW_PARTS), ids=str)
def test_each_part_names_tests_that_show_a_promise(row: int) -> None:
    """The tests are there, and are among those of a promise about that fault."""
    shown = {test for each in PROMISES if row in each.rows for test in each.tests}
    for part, tests in ROW_PARTS[row]:
        assert tests, part
        assert [test for test in tests if not nodes_of(test)] == []
        assert set(tests) <= shown, part


def test_each_fault_is_in_parts() -> None:
    """No fault that must be shown is without its parts."""
    assert set(ROW_PARTS) >= REQUIRED
    assert set(ROW_PARTS) <= set(ROWS)
