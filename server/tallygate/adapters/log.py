"""Logs: one JSON object per line (or coloured lines for people), with secrets taken out.

Guarantees: no value under a secret's name and no user part of a URL reaches the output, in
our own events, in those of libraries (standard `logging` comes the same way) and in tracebacks.
Refuses to know what is worth logging.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO, TypeGuard

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tallygate.domain.trace import span_id, trace_id
from tallygate.ports.tracing import here

REDACTED = "***"

DEPTH_MAX = 6
"""Nested fields deeper than this are cut: an event is flat, and a cycle must not hang a log."""

SECRET_NAME = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|dsn|authorization|cookie|credentials?"
    r"|api[-_]?key|private[-_]?key|signature)$"
)
"""Names whose whole value is secret; `…_token` and `webhook_secret` by their ending."""

URL_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"]*@")
"""The user part of a URL, up to the last @ before its path."""

SECRET_PAIR = re.compile(
    r"(?i)\b(password|passwd|secret|token|api_?key|authorization)"
    r"(['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+)?)[^\s'\"&,;)}]+"
)
"""`password=…` as libpq strings, URL queries and tracebacks spell it."""

KNOWN_SECRET = re.compile(r"\b(whsec_|sk_live_|sk_test_|rk_live_|rk_test_)[A-Za-z0-9+/=_-]+")
"""Keys that say what they are."""


def redact_text(text: str) -> str:
    """Return the text without URL users, `password=` values and keys that name themselves."""
    text = URL_USER.sub(rf"\1{REDACTED}@", text)
    text = SECRET_PAIR.sub(rf"\1\2{REDACTED}", text)
    return KNOWN_SECRET.sub(rf"\1{REDACTED}", text)


def redact_value(value: object, depth: int = 0) -> object:
    """Return the value with every text in it redacted, and secret keys of mappings blanked."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): redact_field(str(key), each, depth) for key, each in value.items()}
    if _is_list(value):
        return [redact_value(each, depth + 1) for each in value]
    # Errors, paths and objects are logged as their text, which may quote an address.
    return redact_text(str(value))


def redact_field(name: str, value: object, depth: int = 0) -> object:
    """Return what may be logged of a field: nothing of it when its name says it is secret."""
    if SECRET_NAME.search(name) and value is not None:
        return REDACTED
    return redact_value(value, depth + 1)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact every field of an event; the last processor before rendering."""
    return {
        name: value if name in {"_record", "_from_structlog"} else redact_field(name, value)
        for name, value in event.items()
    }


def place_in_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say for which span an event was logged, where there is one."""
    at = here()
    if at:
        event["trace_id"], event["span_id"] = trace_id(at), span_id(at)
    return event


def _is_list(value: object) -> TypeGuard[Sequence[object] | set[object] | frozenset[object]]:
    return isinstance(value, list | tuple | set | frozenset)


def configure_logging(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    style: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send structlog's events and standard logging to `stream` (stderr), redacted.

    Called once by the process's entry point; a second call replaces the first.
    """
    output = stream if stream is not None else sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        place_in_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Before redaction, since a traceback's last line may hold a connection string.
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if style == "json"
        else structlog.dev.ConsoleRenderer(
            colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            # Libraries' records arrive with their arguments in the message already.
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
