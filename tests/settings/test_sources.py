"""Facts about where settings come from, and about how their faults are told."""

from pathlib import Path

import pytest

from tallygate.settings_sources import SettingsInvalid, describe, load_settings


def faults(
    environ: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
    config: Path | None = None,
) -> list[str]:
    """Return the faults of these sources, one line each."""
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(flags, environ=environ or {}, config=config)
    return [describe(fault) for fault in caught.value.faults]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A settings file with three settings."""
    path = tmp_path / "tallygate.toml"
    path.write_text('shards = 8\nlog_level = "debug"\nadmit_queue_max = 10\n')
    return path


def test_flags_beat_environment_beats_file(toml: Path) -> None:
    """Each source gives way to the stronger one, setting by setting."""
    settings = load_settings(
        {"shards": 4, "log_level": None},
        environ={"TALLYGATE_SHARDS": "6", "TALLYGATE_LOG_LEVEL": "error"},
        config=toml,
    )
    assert (settings.shards, settings.log_level, settings.admit_queue_max) == (4, "error", 10)


def test_the_environment_names_the_file(toml: Path) -> None:
    """The file may be named by the environment."""
    assert load_settings(environ={"TALLYGATE_CONFIG": str(toml)}).shards == 8


def test_a_named_file_beats_the_environments(toml: Path, tmp_path: Path) -> None:
    """A file given by flag is read in place of the environment's."""
    other = tmp_path / "other.yaml"
    other.write_text("shards: 9\n")
    assert load_settings(environ={"TALLYGATE_CONFIG": str(toml)}, config=other).shards == 9


def test_yaml_is_read(tmp_path: Path) -> None:
    """A YAML file does as well, lists and empty files included."""
    path = tmp_path / "tallygate.yaml"
    path.write_text("grpc_address:\n  - 127.0.0.1:1\n  - unix:/run/t.sock\n")
    expected = ("127.0.0.1:1", "unix:/run/t.sock")
    assert load_settings(environ={}, config=path).grpc_address == expected
    path.write_text("")
    assert load_settings(environ={}, config=path).shards == 16


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    """Faults of every source are reported together, each saying where it stands."""
    path = tmp_path / "tallygate.toml"
    path.write_text('shard = 8\nlog_format = "xml"\n')
    found = faults({"TALLYGATE_SHARDS": "many"}, {"ops_address": "nowhere"}, path)
    assert len(found) == 4
    assert any(each.startswith(f"{path}: shard: there is no such setting") for each in found)
    assert any(each.startswith(f"{path}: log_format: ") for each in found)
    assert any(each.startswith("TALLYGATE_SHARDS: ") for each in found)
    assert any(each.startswith("--ops-address: ") for each in found)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TALLYGATE_REDIS_ULR", "TALLYGATE_REDIS_URL"),
        ("TALLYGATE_GRPC_ADRESS", "TALLYGATE_GRPC_ADDRESS"),
        ("TALLYGATE_SHARD", "TALLYGATE_SHARDS"),
        ("TALLYGATE_POSTGRES_DSN_FIL", "TALLYGATE_POSTGRES_DSN_FILE"),
    ],
)
def test_misspelled_variables_get_a_guess(name: str, meant: str) -> None:
    """A variable of ours that does not exist is a fault, with what was probably meant."""
    (fault,) = faults({name: "x"})
    assert fault == f"{name}: there is no such setting (did you mean {meant}?)"


def test_misspelled_keys_get_a_guess(tmp_path: Path) -> None:
    """A file's misspelled key is a fault, with the key that was probably meant."""
    path = tmp_path / "tallygate.toml"
    path.write_text("admit_que_max = 1\n")
    (fault,) = faults(config=path)
    assert "did you mean admit_queue_max?" in fault


def test_foreign_variables_are_left_alone() -> None:
    """Variables of others, and those that Kubernetes adds for a Service, are not faults."""
    environ = {
        "PATH": "/bin",
        "TALLYGATE_SERVICE_HOST": "10.0.0.1",
        "TALLYGATE_SERVICE_PORT_GRPC": "50051",
        "TALLYGATE_PORT": "tcp://10.0.0.1:50051",
        "TALLYGATE_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environ=environ).shards == 16


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """A secret may be named as a file, whose last line end is not part of it."""
    path = tmp_path / "dsn"
    path.write_text("postgresql://me:hunter2@db/usage\n")
    settings = load_settings(environ={"TALLYGATE_POSTGRES_DSN_FILE": str(path)})
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.get_secret_value() == "postgresql://me:hunter2@db/usage"


def test_missing_secret_files_are_faults(tmp_path: Path) -> None:
    """A secret's file that cannot be read is a fault that names both."""
    path = tmp_path / "none"
    (fault,) = faults({"TALLYGATE_REDIS_URL_FILE": str(path)})
    assert fault.startswith(f"TALLYGATE_REDIS_URL_FILE: cannot read {path}: ")


def test_faults_do_not_quote_secrets(tmp_path: Path) -> None:
    """A fault of a secret value does not repeat the value, nor does a file that is no YAML."""
    assert "hunter2" not in str(faults({"TALLYGATE_REDIS_URL": "htp://me:hunter2@cache"}))
    path = tmp_path / "tallygate.yaml"
    path.write_text("redis_url: redis://me:hunter2@cache\n  broken: [\n")
    (fault,) = faults(config=path)
    assert "hunter2" not in fault
    assert "line 2" in fault


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.ini", "shards = 8"),
        ("settings.toml", "shards = "),
        ("settings.yaml", "- shards"),
        ("settings.yaml", "[1, 2"),
    ],
)
def test_unreadable_files_are_faults(tmp_path: Path, name: str, text: str) -> None:
    """A file of another kind, or that does not parse, is one fault that names the file."""
    path = tmp_path / name
    path.write_text(text)
    (fault,) = faults(config=path)
    assert fault.startswith(f"{path}: ")


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    (fault,) = faults(config=tmp_path / "none.toml")
    assert "cannot read it" in fault


def test_contradictions_name_the_settings() -> None:
    """A fault of two settings together names both."""
    (fault,) = faults({"TALLYGATE_RELAY_LEASE_MS": "1000"})
    assert "relay_lease_ms must exceed relay_send_timeout_ms" in fault
