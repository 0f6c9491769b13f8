"""The kinds of values that settings have: addresses, URLs that hold secrets, lists.

Guarantees: a URL is shown without its user, password and query; a fault names no secret.
Refuses to know any setting.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

REDACTED = "***"


def redact_url(url: str) -> str:
    """Return the URL with its user and password, and its query, hidden."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return REDACTED
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    path, question, query = path.partition("?")
    hidden = f"{REDACTED}@{host}" if at and user else authority
    shown_query = query if query.startswith("host=") and "&" not in query else REDACTED
    return f"{scheme}://{hidden}{slash}{path}{question}{shown_query if question else ''}"


class SecretUrl(SecretStr):
    """A URL that may hold a password: shown without it, given by `get_secret_value()`.

    `file` is where it was read, and where a new one will be.
    """

    def __init__(self, secret_value: str, file: Path | None = None) -> None:
        super().__init__(secret_value)
        self.file = file

    def _display(self) -> str:
        return redact_url(self.get_secret_value())


def check_address(address: str) -> str:
    """Return the listening address as it is; raise ValueError unless `host:port` or `unix:/path`.

    Port 0 asks the system for a free one.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError("a Unix socket needs an absolute path, as in unix:/run/tallygate.sock")
        return address
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not colon or not bare or bracketed != (":" in bare):
        raise ValueError("an address is host:port, [ipv6]:port or unix:/path")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError("a port is a number from 0 to 65535")
    return address


def split_commas(value: object) -> object:
    """Return a comma-separated text as its parts; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def check_scheme(*schemes: str) -> AfterValidator:
    """Return a validator that lets only URLs of these schemes pass, and never shows the URL."""

    def check(url: SecretUrl) -> SecretUrl:
        scheme, mark, rest = url.get_secret_value().partition("://")
        if not mark or scheme not in schemes or not rest:
            raise ValueError(f"the URL must begin with {' or '.join(f'{s}://' for s in schemes)}")
        return url

    return AfterValidator(check)


Address = Annotated[str, AfterValidator(check_address)]
Addresses = Annotated[
    tuple[Address, ...], NoDecode, BeforeValidator(split_commas), Field(min_length=1)
]
RedisUrl = Annotated[
    SecretUrl, check_scheme("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
]
PostgresDsn = Annotated[SecretUrl, check_scheme("postgresql", "postgres")]
