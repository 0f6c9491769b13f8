"""The oracle finds what it is there to find: a sound history passes, each fault is told."""

from dataclasses import replace

import pytest

from tests.oracle.facts import (
    Answer,
    Call,
    Counter,
    Held,
    History,
    Kind,
    Lane,
    Message,
    Rest,
    Rollup,
    Row,
)
from tests.oracle.invariants import faults

ROW = Row("acme", "op-1:0", "requests", 3, 50, 50, "op-1", "s.e", 0, 1)
CALL = Call(
    Kind.CONSUME,
    "acme",
    "op-1",
    "s",
    sent_us=40,
    ended_us=60,
    answer=Answer.GRANTED,
    units=(("requests", 3),),
    events=("op-1:0",),
    held=Held.REDIS,
    decision="allowed",
    accounts=("acme",),
)
COUNTER = Counter("acme", "monthly", "requests", frozenset({"acme"}), 0, 1_000, used=3, limit=10)
MESSAGE = Message("m-1", "hook", (("acme", "op-1:0"),), b"{}")
SOUND = History(
    calls=(CALL, replace(CALL, sent_us=70, ended_us=80, replayed=True)),
    rest=Rest(
        ledger=(ROW,),
        counters=(COUNTER,),
        rollups=(Rollup("acme", "requests", 0, 1_000, 1, 3),),
        lanes=(Lane("s.e", 0, accepted=1, persisted=1),),
        wanted=(MESSAGE,),
        taken=(MESSAGE, MESSAGE),
    ),
    tenants={"acme": "", "other": ""},
    secrets=("hunter2",),
)


def at_rest(**fields: object) -> History:
    """Return the sound history with something else found at rest."""
    return replace(SOUND, rest=replace(SOUND.rest, **fields))  # type: ignore[arg-type]


def repeated(**fields: object) -> History:
    """Return the sound history whose repeat was answered otherwise."""
    repeat = replace(SOUND.calls[1], **fields)  # type: ignore[arg-type]
    return replace(SOUND, calls=(CALL, repeat))


def test_a_sound_history_passes() -> None:
    """A grant, its repeat, its row and its message are as they should be."""
    assert faults(SOUND) == []


BROKEN = {
    "I1 counter": at_rest(counters=(replace(COUNTER, used=4),)),
    "I1 rollup": at_rest(rollups=(Rollup("acme", "requests", 0, 1_000, 1, 2),)),
    "I2": at_rest(counters=(replace(COUNTER, limit=2),)),
    "I3 missing": at_rest(ledger=(), counters=(), rollups=(), wanted=(), taken=()),
    "I3 twice": at_rest(ledger=(ROW, ROW), counters=(), rollups=()),
    "I3 unasked": replace(SOUND, calls=(replace(CALL, operation="op-2", events=()),)),
    "I3 untold": at_rest(taken=()),
    "I3 told twice": at_rest(taken=(MESSAGE, replace(MESSAGE, message_id="m-2"))),
    "I3 told otherwise": at_rest(taken=(MESSAGE, replace(MESSAGE, payload=b"[]"))),
    "I4 refused": repeated(answer=Answer.REFUSED, events=()),
    "I4 anew": repeated(replayed=False),
    "I4 otherwise": repeated(decision="allowed, but less"),
    "I5 lost": at_rest(lanes=(Lane("s.e", 0, accepted=2, persisted=1),)),
    "I5 gap": at_rest(lanes=(Lane("s.e", 0, accepted=2, persisted=2, gaps=((1, 1),)),)),
    "I6 never": at_rest(drained_s=None),
    "I6 late": at_rest(drained_s=61.0),
    "I6 journal": at_rest(journal_left=1),
    "I7 shown": repeated(accounts=("other",)),
    "I7 charged": at_rest(ledger=(replace(ROW, tenant="other"),), counters=(), rollups=()),
    "I8": repeated(text="cannot reach redis://:hunter2@host"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_told(name: str) -> None:
    """What is wrong with a history is told under its invariant's name."""
    found = faults(BROKEN[name])
    assert [line for line in found if line.startswith(name.split(maxsplit=1)[0] + ":")], found


def test_what_a_run_may_lose_is_excused() -> None:
    """An event held by Redis alone is excused where Redis and the journals were lost together."""
    lost = at_rest(ledger=(), counters=(), rollups=(), wanted=(), taken=())
    assert faults(replace(lost, lossy=frozenset({Held.REDIS}))) == []


def test_an_operation_forgotten_with_the_data_of_redis_may_be_decided_anew() -> None:
    """A repeat after a loss of Redis may be granted anew or refused; within a life it may not."""
    anew = repeated(replayed=False, decision="allowed, elsewhere")
    assert faults(anew)
    assert faults(replace(anew, forgotten_us=(65,))) == []
