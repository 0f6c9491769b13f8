"""The page of guarantees: every promise names tests that exist, every fault has one."""

from pathlib import Path

import pytest

from tests.chaos.fault_rows import REQUIRED, ROWS
from tests.chaos.guarantees import PAGE, nodes_of, render, results_of, uncovered
from tests.chaos.kept import Result, Run, keep_larger, read, write
from tests.chaos.promise import Promise
from tests.chaos.promises import PROMISES

REPORT = """\
<testsuites><testsuite name="pytest">
<testcase classname="tests.faults.test_x" name="test_a[one]" time="1.5"/>
<testcase classname="tests.faults.test_x" name="test_a[two]" time="0.5"><failure/></testcase>
<testcase classname="tests.faults.test_x" name="test_b" time="0.25"/>
</testsuite></testsuites>
"""


@pytest.mark.parametrize("promise", PROMISES, ids=lambda each: each.title)
def test_each_promise_names_tests_that_exist(promise: Promise) -> None:
    """A promise has tests and a bound; each of its tests is there, each of its faults is known."""
    assert promise.tests
    assert promise.bound
    assert [test for test in promise.tests if not nodes_of(test)] == []
    assert set(promise.rows) <= set(ROWS)


def test_each_fault_has_a_test() -> None:
    """No fault that must be shown is without a promise that has tests."""
    assert uncovered() == set()
    assert set(ROWS) >= REQUIRED


def test_the_page_is_what_is_known() -> None:
    """The page is the promises with the results of the last run."""
    assert PAGE.read_text() == render(read())


def test_a_report_is_read_case_by_case(tmp_path: Path) -> None:
    """Cases of one test are added up, and one that failed shows."""
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    found = results_of(report)
    assert found == {
        "tests/faults/test_x.py::test_a": Result(2, 1, 2.0),
        "tests/faults/test_x.py::test_b": Result(1, 1, 0.25),
    }
    run = Run("2026-01-01", 1, found)
    assert run.of("tests/faults/test_x.py::test_a") == "**1 of 2 failed**"
    assert run.of("tests/faults/test_x.py::test_b") == "passed"
    assert run.of("tests/faults/test_x.py::test_c") == "not run yet"


def test_kinds_of_results_are_kept_apart(tmp_path: Path) -> None:
    """A larger run replaces its own last one, and leaves those of the tests alone."""
    path = tmp_path / "results.json"
    write(Run("2026-01-01", 7, {"tests/x.py::test_a": Result(1, 1, 0.5)}), path)
    keep_larger("make million", "first", path)
    keep_larger("make million", "second", path)
    kept = read(path)
    assert (kept.date, kept.seed, kept.of("tests/x.py::test_a")) == ("2026-01-01", 7, "passed")
    assert [each.text for each in kept.larger.values()] == ["second"]


def test_a_test_that_is_not_there_is_found_out() -> None:
    """Neither a file that is missing nor a name that is missing passes for a test."""
    here = "tests/chaos/test_guarantees.py"
    assert nodes_of(f"{here}::test_each_fault_has_a_test") == [
        f"{here}::test_each_fault_has_a_test"
    ]
    assert nodes_of(f"{here}::test_nothing_of_this_name") == []
    assert nodes_of("tests/chaos/test_missing.py::test_each_fault_has_a_test") == []


def test_a_contract_is_kept_by_fake_and_adapter() -> None:
    """A test of a contract is called by each class that keeps it."""
    told = nodes_of("tests/contracts/test_stream.py::test_takes_over_what_another_left")
    assert len(told) >= 2
    assert {each.count("::") for each in told} == {2}
