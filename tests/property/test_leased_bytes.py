"""What leased calls find and make in bytes is what the library finds and makes."""

from hypothesis import example, given
from hypothesis import strategies as st

from tallygate.api.content import without_id
from tallygate.api.leased_replies import Form
from tallygate.api.replies import Replies
from tallygate.domain.decision import Charge, Decided, LimitReading, LimitState
from tallygate.domain.ids import OperationId, ReservationId, account_of
from tallygate.domain.request import ConsumeResult, Durability, event_id_of
from tallygate.flow.heat import readings_of
from tallygate.flow.lease import debit, lefts
from tallygate.flow.settle import Lease
from tallygate.gen.v1 import event_pb2, quota_pb2
from tests.builders import ACME, catalog, charges, rate, window

ACCOUNT = account_of(ACME)
FOREVER = float("inf")
Request = quota_pb2.CheckAndConsumeRequest
TEXTS = st.text(max_size=200)
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200)
# Around the places at which a number takes one byte more, and a limit warns.
EDGES = [0, 1, 127, 128, 5_000, 16_383, 16_384, 2**21, 2**28, 2**35]
TAKEN = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**40))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request as callers may send it, its fields in some order, or torn."""
    message = Request(tenant_id=draw(TEXTS))
    message.min_durability = draw(st.integers(0, 300))  # type: ignore[assignment]
    for _ in range(draw(st.integers(0, 2))):
        message.items.add(meter=draw(TEXTS), amount=draw(st.integers(0, 2**62)))
        message.items[-1].dimensions["region"] = draw(TEXTS)
    if draw(st.booleans()):
        message.context.subject_id = draw(TEXTS)
    named = [Request(operation_id=each).SerializeToString() for each in draw(st.lists(IDS))]
    parts = draw(st.permutations([message.SerializeToString(), *named]))
    whole = b"".join(parts)
    return whole[: len(whole) - draw(st.sampled_from([0, 0, 0, 1, 2]))]


@given(st.one_of(requests(), st.binary(max_size=40)))
@example(b"\x1a\x01a\x1a\x01b")
@example(b"\x28\x01\x1a\x01a")
def test_id_is_found_as_the_library_finds_it(request: bytes) -> None:
    """A content is what the library reads without the id, wherever it reads the content at all."""
    found = without_id(request)
    if found is None:
        return
    content, named = found
    try:
        expected = Request.FromString(content)
    except Exception:  # noqa: BLE001  no content that is read begins with this one
        return
    assert not expected.operation_id
    expected.operation_id = named
    assert Request.FromString(request) == expected


def test_plain_requests_are_found() -> None:
    """The library's own order of fields, with any length of an id, takes the short way."""
    for size in (1, 36, 127, 128, 200):
        message = Request(tenant_id="acme", operation_id="x" * size)
        message.min_durability = event_pb2.DURABILITY_REDIS
        message.items.add(meter="requests", amount=1)
        found = without_id(message.SerializeToString())
        message.ClearField("operation_id")
        assert found == (message.SerializeToString(), "x" * size)


def lease_of(bound: tuple[Charge, ...], taken: int, left: list[int]) -> Lease:
    """Return a lease for such calls, with so much left, and so much used when it was taken."""
    ends_us = 1_750_000_000_123_456
    readings = tuple(
        LimitReading(
            ACCOUNT, each.limit_id, each.meter, LimitState.OK, taken, each.limit, 0, ends_us
        )
        for each in bound
    )
    held = (ReservationId("lease"), 3, ACME, bound, catalog(), ())
    return Lease(*held, readings, 0, 0.0, FOREVER, 1, (), left)


@given(
    st.tuples(TAKEN, st.integers(0, 300), st.sampled_from(EDGES)),
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from(Durability),
)
def test_replies_are_those_of_each_call(
    units: tuple[int, int, int], calls: int, items: int, level: Durability
) -> None:
    """Made together, they are what each call would have been told, one after the other."""
    taken, held, room = units
    limits = [window(limit=taken + room + 1, warn_at_ppm=(500_000,)), rate(limit=taken + 1)]
    bound = charges(limits, items)
    left = [held + calls * items] * len(bound)
    # What is left of a lease may be more than what is used, where usage was given back.
    lease = lease_of(bound, taken, left)
    of = [OperationId(f"operation-{number:02}") for number in range(calls)]
    replies = Form(items, lease, level).many(of, lefts(lease, [items] * len(bound), calls))
    for named, reply in zip(of, replies, strict=True):
        debit(lease, [items] * len(bound))
        answer = Decided(True, 0, readings_of(lease, lease.left), leased=True)
        events = tuple(event_id_of(named, index) for index in range(items))
        assert reply == Replies().consumed(ConsumeResult(answer, events, level))
