"""docs/fake-stripe.md: its code prints what it shows, its tables are what the fake has."""

import json

import aiohttp

from tallygate_fake_stripe import Behaviour, FakeStripe, FaultKind, VirtualClock
from tallygate_fake_stripe.command import _parser
from tallygate_fake_stripe.control import _ANSWERS
from tallygate_fake_stripe.passage import ROUTES

from .pages import block, commands, pages, prose, rows
from .test_examples import run_python

PAGE = "docs/fake-stripe.md"
ADDRESS = "http://127.0.0.1:12113"


async def test_example_prints_what_it_shows() -> None:
    """The example runs as it stands, in a process of its own."""
    assert await run_python(block(PAGE, "python", "asyncio.run")) == block(PAGE, "text", "answer")


async def test_commands_do_what_they_show() -> None:
    """The process starts with the flags shown, and every request that is shown is answered."""
    shown = list(commands(block(PAGE, "console", "curl")))
    assert _parser().parse_args(shown[0][1:]).no_rate_limits
    async with FakeStripe(VirtualClock()) as fake, aiohttp.ClientSession() as session:
        for _, url, *rest in shown[1:]:
            body = json.loads(rest[1]) if rest else None
            method = "POST" if rest else "GET"
            address = url.replace(ADDRESS, fake.url)
            async with session.request(method, address, json=body) as answer:
                assert answer.status == 200, await answer.text()


def test_tables_are_complete() -> None:
    """Every fault, every switch with its default, and every request to the fake is in a table."""
    first = [cells[0].replace("`", "").split(", ") for cells in rows(pages()[PAGE])]
    names = {name for cells in first for name in cells}
    assert set(FaultKind) <= names
    assert {f"{method} {name}" for method, name in _ANSWERS} <= names
    switches = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(section("Switches"))}
    defaults = {name: json.dumps(value) for name, value in vars(Behaviour()).items()}
    assert switches == {name: text.strip('"') for name, text in defaults.items()}
    kinds = [cells[0].strip("`") for cells in rows(section("Faults"))]
    assert kinds == list(FaultKind)


def test_endpoints_are_the_fakes() -> None:
    """Every address in the table of what it does leads to an endpoint, and every one is there."""
    named = set()
    for cells in rows(section("What it does")):
        folder = ""
        for name in cells[0].replace("`", "").split(", "):
            path = name if name.startswith("/") else f"{folder}/{name}"
            folder = path.rpartition("/")[0]
            named.add(path.replace("/ID/", "/{}/"))
    found = {route.pattern for route in ROUTES}
    assert named <= found
    assert all(any(f"{path}/".startswith(f"{name}/") for name in named) for path in found)


def section(title: str) -> str:
    """Return what stands under a heading of the page."""
    _, _, below = prose(pages()[PAGE]).partition(f"## {title}\n")
    return below.partition("\n## ")[0]
