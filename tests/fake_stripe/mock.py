"""Stripe's own stateless mock, where it is on PATH: it holds requests to Stripe's specification."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

MOCK = shutil.which("stripe-mock")
END_TIMEOUT_S = 60
_LISTENING = re.compile(r"Listening for HTTP at address: (\S+)")


@contextmanager
def stripe_mock(path: str) -> Iterator[str]:
    """Run the mock on free ports; yield its address."""
    command = [path, "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, map(_LISTENING.search, process.stdout)), None)
            assert found is not None, "stripe-mock ended before it listened"
            yield f"http://{found[1]}"
        finally:
            process.terminate()
            process.wait(END_TIMEOUT_S)
