"""The fake as a process of its own, from start to end."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from tallygate_fake_stripe.command import main

from .clients import connected, make_meter

END_TIMEOUT_S = 60


@contextmanager
def process(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command on a free port; yield it with its address."""
    command = [sys.executable, "-m", "tallygate_fake_stripe", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().strip()
        finally:
            running.terminate()
            running.wait(END_TIMEOUT_S)


async def test_process_serves_until_it_is_told_to_end() -> None:
    """It says where it listens, on loopback, keeps its virtual clock, and ends with 0."""
    with process("--virtual-from", "2026-03-01", "--lag-s", "5") as (running, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        async with connected(url) as client:
            meter = await make_meter(client)
        assert meter.created == 1_772_323_200
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}/_fake/switches") as answer,
        ):
            assert (await answer.json())["lag_s"] == 5
        running.send_signal(signal.SIGINT)
        assert running.wait(END_TIMEOUT_S) == 0


@pytest.mark.parametrize(
    "wrong", [["--virtual-from", "soon"], ["--unknown-customer", "shrug"], ["--port", "x"]]
)
def test_wrong_arguments_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that cannot be is named, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
