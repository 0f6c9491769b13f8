"""The chain of the audit log holds as it was written, and breaks wherever it is touched."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.errors import InvalidField
from tallygate.domain.trail import (
    ChainBreak,
    ChainCheck,
    TrailEntry,
    TrailHead,
    TrailLink,
    actor_name,
    link_hash,
    linked,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ENTRIES = st.builds(TrailEntry, *(TEXT for _ in TrailEntry.__dataclass_fields__))
FIELDS = (*TrailEntry.__dataclass_fields__,)


def chain(entries: list[TrailEntry]) -> tuple[TrailHead, list[TrailLink]]:
    """Return entries as a chain, and its end."""
    head, links = TrailHead(), []
    for entry in entries:
        link = linked(head.seq + 1, 1_000 + head.seq, entry, head.hash)
        links.append(link)
        head = TrailHead(link.seq, link.hash)
    return head, links


def breaks(head: TrailHead, links: list[TrailLink]) -> list[ChainBreak]:
    """Return where rows, read by their numbers, do not hold."""
    check = ChainCheck()
    found = [each for link in sorted(links, key=lambda x: x.seq) for each in check.add(link)]
    return [*found, *check.end(head)]


@given(st.lists(ENTRIES, max_size=6))
def test_what_was_written_holds(entries: list[TrailEntry]) -> None:
    """A chain of any entries has no break."""
    assert breaks(*chain(entries)) == []


@given(st.lists(ENTRIES, min_size=1, max_size=6), st.data())
def test_any_touch_is_found(entries: list[TrailEntry], data: st.DataObject) -> None:
    """One field of one row changed, a row taken out, or two that differ swapped, is found."""
    head, links = chain(entries)
    place = data.draw(st.integers(0, len(links) - 1))
    link = links[place]
    match data.draw(st.sampled_from(["field", "time", "remove", "swap"])):
        case "field":
            name = data.draw(st.sampled_from(FIELDS))
            entry = replace(link.entry, **{name: getattr(link.entry, name) + "!"})
            links[place] = replace(link, entry=entry)
        case "time":
            links[place] = replace(link, at_us=link.at_us + 1)
        case "remove":
            del links[place]
        case _:
            other = links[0]
            if other.entry == link.entry:
                return
            links[0] = replace(link, seq=other.seq)
            links[place] = replace(other, seq=link.seq)
    assert breaks(head, links)


@given(st.lists(ENTRIES, min_size=2, max_size=6), st.data())
def test_a_row_hashed_anew_is_found(entries: list[TrailEntry], data: st.DataObject) -> None:
    """A row that was changed with its hash made to fit is found by the one after it, or the end."""
    head, links = chain(entries)
    place = data.draw(st.integers(0, len(links) - 1))
    link = links[place]
    entry = replace(link.entry, actor=link.entry.actor + "!")
    links[place] = linked(link.seq, link.at_us, entry, link.prev_hash)
    (found,) = breaks(head, links)
    assert (found.seq, found.flaw) == (min(place + 2, len(links)), "detached")


def test_fields_do_not_run_into_each_other() -> None:
    """Moving a letter from one field to the next gives another hash."""
    one = TrailEntry("ab", "c", "d")
    other = TrailEntry("a", "bc", "d")
    assert link_hash(1, 0, one, bytes(32)) != link_hash(1, 0, other, bytes(32))


def test_the_hash_is_the_one_documented() -> None:
    """The bytes are those that the documentation says, so that anybody can check them."""
    entry = TrailEntry("ada", "control", "ApplyPlan", "acme", "c1", "{}", "00", "done")
    assert link_hash(1, 5, entry, bytes(32)).hex() == (
        "fb220b3ad66483bb6f24fed95b56304bf892a25c40108501445df89ca6fd08ad"
    )


@pytest.mark.parametrize("name", ["", " ", "a\n", "x" * 129, "\x00"])
def test_actors_can_be_read(name: str) -> None:
    """What is empty, long or unprintable names nobody."""
    with pytest.raises(InvalidField):
        actor_name(name, "actor")
    assert actor_name("Ada Lovelace", "actor") == "Ada Lovelace"
