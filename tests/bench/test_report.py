"""A run is held against its budgets, and written where it is kept."""

import pytest

from bench import figures, model, report, targets
from bench.figures import Closed, Figure, Measured, Verdict
from bench.peers.running import gubernator_message, ratelimit_message
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2


def closed(per_second: float, mean_ms: float = 1.0) -> Closed:
    """Return three repeats around a speed and a time."""
    around = (0.9, 1.0, 1.2)
    return Closed(
        Figure("/s", tuple(per_second * each for each in around)),
        Figure("ms", tuple(mean_ms * each for each in around)),
        Figure("us", (50.0,)),
        Figure("us", (5.0,)),
        Figure("us", (20.0,)),
    )


def run() -> Measured:
    """Return a run in which ratelimit is faster with its pipeline window, and slower alone."""
    found = Measured()
    speeds = {
        targets.EMPTY: (4_000.0, 0.4),
        targets.RATELIMIT: (20_000.0, 0.4),
        targets.RATELIMIT_WINDOW: (25_000.0, 0.8),
        targets.sidecar("exact", "native"): (20_000.0, 0.5),
        targets.sidecar("leased", "native"): (80_000.0, 0.1),
        targets.sidecar("exact", "grpcio"): (2_800.0, 1.0),
    }
    found.busy = {name: closed(speed, ms) for name, (speed, ms) in speeds.items()}
    found.lone = dict(found.busy)
    found.tenants = {100: Figure("us", (50.0,)), 100_000: Figure("us", (55.0,))}
    return found


def verdict(budget: str) -> Verdict:
    """Return what the run says of one budget."""
    (found,) = [each for each in figures.verdicts(run()) if each.budget.startswith(budget)]
    return found


@pytest.mark.parametrize(
    ("budget", "value", "says"),
    [
        ("exact, native", 0.8, "met"),
        ("leased, native", 3.2, "stretch met"),
        ("one at a time", 0.25, "stretch met"),
        ("exact on grpc.aio", 0.7, "missed"),
        ("cost per check, 100 to", 1.1, "met"),
        ("cost per check, 1 to", None, "not measured"),
        ("ledger ingest", None, "not measured"),
    ],
)
def test_budgets(budget: str, value: float | None, says: str) -> None:
    """Ratios are of medians, to the peer as it is fastest; what was not measured is not met."""
    found = verdict(budget)
    assert found.value == (None if value is None else pytest.approx(value))
    assert found.says == says


def test_every_budget_is_there() -> None:
    """The design has twelve budgets; the last row of memory holds two."""
    assert len(figures.verdicts(Measured())) == 12


def test_capacity_is_told_from_processor_time() -> None:
    """A sidecar at 50 us a call fills 0.7 of a processor at 14,000; its Redis at 5 us ten times."""
    (exact, leased) = model.rows(run())
    assert exact[:4] == (targets.sidecar("exact", "native"), "14,000", "140,000", "10")
    assert leased[0] == targets.sidecar("leased", "native")


def test_page_keeps_what_is_around_the_tables() -> None:
    """Only what lies between the markers is replaced."""
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.between_markers(page, "new\n")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.between_markers(once, "new\n") == once


def test_page_without_markers_is_refused() -> None:
    """A page that has no place for tables is left alone."""
    with pytest.raises(ValueError, match="has no"):
        report.between_markers("no markers", "new")


def test_doubts_are_told() -> None:
    """What a reader must know before believing a run stands below its tables."""
    found = run()
    found.doubts.append("the machine was busy")
    assert report.markdown(found, "today").endswith("In doubt: the machine was busy.\n")


def test_own_calls_are_what_they_say() -> None:
    """Our prepared calls decode to what the table says of them."""
    batch = quota_pb2.BatchCheckAndConsumeRequest.FromString(targets.check_batch())
    assert len({each.tenant_id for each in batch.requests}) == targets.BATCH_SIZE
    records = usage_pb2.BatchRecordUsageRequest.FromString(targets.record_batch())
    assert {each.min_durability for each in records.requests} == {event_pb2.DURABILITY_JOURNAL}
    assert len(records.requests) == targets.BATCH_SIZE


def test_peers_calls_are_protobuf() -> None:
    """The peers' calls, written by hand, have the fields that their protos name."""
    assert ratelimit_message(1) == (
        b"\n\x05bench" + b"\x12\x14\n\x12\n\x06tenant\x12\x08tenant-1" + b"\x18\x01"
    )
    assert ratelimit_message(2).count(b"tenant-1") == 2
    one = gubernator_message()
    assert one.startswith(b"\n!\n\x08requests\x12\x08tenant-1\x18\x01\x20")
    assert len(gubernator_message(100)) > 100 * len(one) - 100
