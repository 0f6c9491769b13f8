"""A request that is known by its content is what reading it anew gives, whatever its bytes are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from tallygate.api.contents import Contents
from tallygate.api.convert import consume_request
from tallygate.domain.errors import InvalidField
from tallygate.domain.request import ConsumeRequest
from tallygate.gen.v1 import quota_pb2

Request = quota_pb2.CheckAndConsumeRequest
IDS = st.sampled_from(["", "op-1", "op-2", "has space", "x" * 200])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return one of few contents under one of few ids, its fields in some order, or torn."""
    message = Request(tenant_id=draw(st.sampled_from(["", "acme"])))
    for _ in range(draw(st.integers(0, 2))):
        message.items.add(meter=draw(st.sampled_from(["requests", "?"])), amount=1)
    named = [Request(operation_id=each).SerializeToString() for each in draw(st.lists(IDS))]
    whole = b"".join(draw(st.permutations([message.SerializeToString(), *named])))
    return whole[: len(whole) - draw(st.sampled_from([0, 0, 0, 0, 1]))]


def read(data: bytes) -> ConsumeRequest | str:
    """Return the request as reading it alone gives it, or the name of what is wrong with it."""
    return outcome(lambda: consume_request(Request.FromString(data)))


def outcome(work: Callable[[], ConsumeRequest]) -> ConsumeRequest | str:
    """Return what comes of reading a request."""
    try:
        return work()
    except (DecodeError, InvalidField) as error:
        return type(error).__name__


@given(st.lists(requests(), min_size=2, max_size=12))
@example([b"\x0a\x04acme\x12\x0a\x0a\x08requests", b"\x0a\x04acme\x12\x0a\x0a\x08requests"])
def test_known_requests_are_those_read_anew(some: list[bytes]) -> None:
    """In whatever order they come; where the caller names no operation, each gets a new id."""
    contents, made = Contents(), set[str]()
    for data in [*some, *some]:
        expected, found = read(data), outcome(partial(contents.request, data))
        if isinstance(expected, ConsumeRequest) and not Request.FromString(data).operation_id:
            assert isinstance(found, ConsumeRequest)
            assert found.operation_id not in made
            made.add(found.operation_id)
            found = replace(found, operation_id=expected.operation_id)
        assert found == expected
