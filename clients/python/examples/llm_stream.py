"""Charge a streamed completion by the tokens that it came to.

    python llm_stream.py --target 127.0.0.1:50051 --tenant acme --prompt "Tell me of the sea."

The budget is reserved before the model is asked: the prompt, and the most that the answer may have.
While the answer streams, the reservation is kept alive; at its end, whichever way it ends, what was
produced is committed and the rest comes back. A tenant without the budget costs no token at all.

The catalog needs a meter `tokens`. The model is a small HTTP server in this file, which streams
server-sent events as hosted models do; put yours in the place of `ask`.
"""

import argparse
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tallygate_client import Client, Item, QuotaExceeded

MODEL = "echo-1"
END = "[DONE]"


def complete(
    client: Client, model: str, tenant: str, prompt: str, max_tokens: int
) -> Iterator[str]:
    """Yield an answer as it comes, charged to a tenant.

    Raises:
        QuotaExceeded: the tenant's budget does not hold what it may come to.
    """
    budget = Item("tokens", tokens_of(prompt) + max_tokens, {"model": MODEL})
    held = client.hold(tenant, [budget], ttl=30)
    used = 0
    try:
        for event in ask(model, prompt, max_tokens):
            used = event["usage"]["total_tokens"]
            yield event["text"]
    finally:
        # A model that breaks off, or a reader who has had enough, does not make unsaid what was
        # said: it is paid for. Where nothing was, nothing is.
        if used:
            held.commit([used])
        else:
            held.release()


def tokens_of(text: str) -> int:
    """Count tokens; words will do for this model."""
    return len(text.split())


def ask(model: str, prompt: str, max_tokens: int) -> Iterator[dict[str, Any]]:
    """Ask the model, and yield its events one by one as they arrive."""
    connection = http.client.HTTPConnection(model, timeout=30)
    with contextlib.closing(connection):
        body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "stream": True})
        connection.request("POST", "/v1/completions", body)
        for line in connection.getresponse():
            data = line.decode().removeprefix("data: ").strip()
            if data == END:
                return
            if data:
                yield json.loads(data)
    raise ConnectionError("the model broke off")


class Model(BaseHTTPRequestHandler):
    """Stands for a model: says the prompt again, a word at a time."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Stream an answer."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = asked["prompt"].split()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, word in enumerate(words[: asked["max_tokens"]], 1):
            usage = {"total_tokens": len(words) + number}
            self._say(json.dumps({"text": word + " ", "usage": usage}))
        self._say(END)

    def _say(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def model_api() -> Iterator[str]:
    """Run the model; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def main(arguments: list[str] | None = None) -> int:
    """Ask once, and print the answer and what it came to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target")
    parser.add_argument("--tenant", default="acme")
    parser.add_argument("--prompt", default="Tell me of the sea.")
    parser.add_argument("--max-tokens", type=int, default=100)
    asked = parser.parse_args(arguments)
    with Client(asked.target) as client, model_api() as model:
        try:
            for text in complete(client, model, asked.tenant, asked.prompt, asked.max_tokens):
                print(text, end="", flush=True)
        except QuotaExceeded as refused:
            wait = refused.decision.retry_after
            when = "" if wait is None else f", try again in {wait:.0f} s"
            print(f"over budget by {refused.decision.refused_by}{when}")
            return 1
        print()
        for limit in client.quota(asked.tenant, meters=["tokens"]).limits:
            print(f"{limit.limit_id}: {limit.used} of {limit.limit} tokens used")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
