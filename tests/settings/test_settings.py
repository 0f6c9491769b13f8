"""Facts about the settings object."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl, redact_url


def test_defaults_are_valid() -> None:
    """Without any source the settings are those that the documentation promises."""
    settings = Settings()
    assert settings.grpc_address == ("127.0.0.1:50051",)
    assert settings.ops_address == "127.0.0.1:9464"
    assert settings.control_address == "127.0.0.1:50052"
    assert settings.data_dir == Path(".tallygate")
    assert settings.shards == 16
    assert settings.redis_url is None


def test_settings_are_frozen() -> None:
    """A setting cannot change once the process runs."""
    with pytest.raises(ValidationError):
        Settings().shards = 3


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object itself takes nothing from the machine."""
    monkeypatch.setenv("SHARDS", "3")
    monkeypatch.setenv("TALLYGATE_SHARDS", "3")
    assert Settings().shards == 16


def test_each_setting_is_documented() -> None:
    """Each setting says what it is and why it has its number."""
    missing = [name for name, field in Settings.model_fields.items() if not field.description]
    assert missing == []


def test_each_number_has_bounds() -> None:
    """No number is unbounded on either side."""
    unbounded = [
        name
        for name, field in Settings.model_fields.items()
        if field.annotation is int
        and {type(each).__name__ for each in field.metadata} != {"Ge", "Le"}
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:0", "0.0.0.0:50051", "[::1]:9464", "localhost:1", "unix:/run/tallygate.sock"],
)
def test_addresses_are_accepted(address: str) -> None:
    """Host and port, IPv6 in brackets and absolute Unix sockets are addresses."""
    assert Settings(ops_address=address).ops_address == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "50051", ":50051", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1"),
        *("::1:9464", "[localhost]:1", "unix:relative.sock", "unix:", "127.0.0.1:\uff11"),
    ],
)
def test_bad_addresses_are_refused(address: str) -> None:
    """What is no address is refused, naming the field."""
    with pytest.raises(ValidationError) as caught:
        Settings(ops_address=address)
    assert caught.value.errors()[0]["loc"] == ("ops_address",)


def test_addresses_come_as_a_list() -> None:
    """Several addresses are separated by commas."""
    settings = Settings.model_validate({"grpc_address": "unix:/run/t.sock, 127.0.0.1:50051"})
    assert settings.grpc_address == ("unix:/run/t.sock", "127.0.0.1:50051")


def test_passwords_are_not_shown() -> None:
    """No way of showing the settings shows a secret, and the code still gets it."""
    url = "redis://me:hunter2@cache:6379/0"
    settings = Settings(
        redis_url=SecretUrl(url),
        postgres_dsn=SecretUrl("postgresql://me:hunter2@db/usage?password=hunter2"),
    )
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        str(settings.shown()),
    ):
        assert "hunter2" not in text
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url
    assert settings.shown()["redis_url"] == "redis://***@cache:6379/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache:6379", "redis://cache:6379"),
        ("redis://:pw@cache", "redis://***@cache"),
        ("postgresql://app:p@w@db/usage", "postgresql://***@db/usage"),
        ("postgresql://app@/usage?host=%2Frun", "postgresql://***@/usage?host=%2Frun"),
        ("postgresql://db/usage?password=pw", "postgresql://db/usage?***"),
        ("host=db password=pw", "***"),
    ],
)
def test_urls_lose_user_and_query(url: str, shown: str) -> None:
    """A shown URL keeps what helps to find a mistake, and no secret."""
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("field", "url"),
    [
        ("redis_url", "http://cache"),
        ("redis_url", "cache:6379"),
        ("postgres_dsn", "mysql://db"),
        ("postgres_dsn", "postgresql://"),
    ],
)
def test_wrong_schemes_are_refused(field: str, url: str) -> None:
    """A URL of another kind is refused, naming the kinds that do."""
    with pytest.raises(ValidationError, match="must begin with"):
        Settings.model_validate({field: url})


@pytest.mark.parametrize(
    "values",
    [
        {"ingest_claim_idle_ms": 30_000, "postgres_statement_timeout_ms": 30_000},
        {"relay_lease_ms": 10_000, "relay_send_timeout_ms": 10_000},
        {"processes": 2, "grpc_address": "127.0.0.1:50051,unix:/run/tallygate.sock"},
    ],
)
def test_contradictions_are_refused(values: dict[str, object]) -> None:
    """Values that are wrong only together are refused."""
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_tenants_to_be_shown_are_few_and_can_be_tenants() -> None:
    """A list of names, each as a tenant's may be; neither a series without end nor a typo."""
    assert Settings().usage_figures_tenants == ()
    named = Settings(usage_figures_tenants="acme, globex")  # type: ignore[arg-type]
    assert named.usage_figures_tenants == ("acme", "globex")
    for wrong in ("two words", ",".join(f"tenant-{each}" for each in range(51))):
        with pytest.raises(ValidationError, match="usage_figures_tenants"):
            Settings(usage_figures_tenants=wrong)  # type: ignore[arg-type]
