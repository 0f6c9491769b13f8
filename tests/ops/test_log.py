"""Facts about logs: their form, and what never reaches them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tallygate.adapters.log import configure_logging, redact_text, redact_value


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Send logs into a text, and put logging back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging(level="info", stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def only_line(output: io.StringIO) -> dict[str, object]:
    """Return the one event that was logged."""
    (line,) = output.getvalue().splitlines()
    event: dict[str, object] = json.loads(line)
    return event


def test_an_event_is_one_line_of_json(output: io.StringIO) -> None:
    """An event has its name, fields, level, logger and time in UTC."""
    structlog.get_logger("tallygate.flow").info("catalog_loaded", version=3, names=("a", "b"))
    event = only_line(output)
    assert str(event.pop("timestamp")).endswith("Z")
    assert event == {
        "event": "catalog_loaded",
        "level": "info",
        "logger": "tallygate.flow",
        "version": 3,
        "names": ["a", "b"],
    }


def test_standard_logging_comes_the_same_way(output: io.StringIO) -> None:
    """A library's record has the same form, its arguments filled in and redacted."""
    logging.getLogger("library").warning("cannot reach %s", "redis://me:hunter2@cache:6379")
    event = only_line(output)
    assert event["event"] == "cannot reach redis://***@cache:6379"
    assert event["logger"] == "library"
    assert event["level"] == "warning"


def test_levels_are_held(output: io.StringIO) -> None:
    """What is below the level is not written."""
    structlog.get_logger("tallygate").debug("detail")
    logging.getLogger("library").debug("detail")
    assert output.getvalue() == ""


def test_tracebacks_are_redacted(output: io.StringIO) -> None:
    """A traceback whose error quotes an address shows no password, of ours or a library's."""
    for log in (structlog.get_logger("tallygate"), logging.getLogger("library")):
        try:
            raise RuntimeError("postgresql://app:hunter2@db/usage refused password=hunter2")
        except RuntimeError:
            log.exception("failed")
    assert "hunter2" not in output.getvalue()
    assert output.getvalue().count("RuntimeError") >= 2


def test_console_lines_are_redacted() -> None:
    """The form for people hides what the form for machines hides."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging(style="console", stream=stream)
    structlog.get_logger("tallygate").info("connected", dsn="postgresql://app:hunter2@db")
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    assert "connected" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *("password", "webhook_secret", "api_key", "API-KEY", "auth_token", "postgres_dsn"),
        *("Authorization", "signature", "credentials", "cookie"),
    ],
)
def test_secret_names_hide_their_value(output: io.StringIO, name: str) -> None:
    """A field whose name says it is secret is blanked, at the top and nested."""
    structlog.get_logger("tallygate").info("seen", **{name: "hunter2"}, nested={name: ["hunter2"]})
    assert "hunter2" not in output.getvalue()
    assert only_line(output)[name] == "***"


def test_other_names_are_kept(output: io.StringIO) -> None:
    """Names that only resemble secret ones are shown."""
    structlog.get_logger("tallygate").info("seen", tokens_used=7, tenant="acme", passed=True)
    event = only_line(output)
    assert (event["tokens_used"], event["tenant"], event["passed"]) == (7, "acme", True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:hunter2@cache", "redis://***@cache"),
        ("rediss://me:hun@ter2@cache/0", "rediss://***@cache/0"),
        ("host=db password=hunter2 user=app", "host=db password=*** user=app"),
        ("{'password': 'hunter2'}", "{'password': '***'}"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("key whsec_aHVudGVyMg== given", "key whsec_*** given"),
        ("sk_live_hunter2", "sk_live_***"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_secrets_within_text_are_hidden(text: str, shown: str) -> None:
    """Addresses, pairs and keys that name themselves lose their secret and nothing else."""
    assert redact_text(text) == shown


def test_a_cycle_is_cut() -> None:
    """A value that contains itself is logged to a depth, and does not hang."""
    cycle: list[object] = ["redis://:hunter2@cache"]
    cycle.append(cycle)
    assert "hunter2" not in str(redact_value(cycle))
