"""Settings, checks and exit codes of the command itself."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tallygate.gen.v1 import quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.processes import (
    COMMAND,
    FREE,
    Finished,
    installed,
    rows_of,
    site,
    started,
    tallygate,
)
from tests.servers import eventually
from tests.sidecar import channel, charge, failure

SECRET = "hunter2"
NOWHERE = "127.0.0.1:1"


async def shown(*arguments: object, **settings: Any) -> dict[str, str]:
    """Return the settings that the command sees."""
    finished = await tallygate("check-config", "--json", *arguments, **settings)
    assert finished.code == 0, finished.err
    return finished.figures("settings")


def assert_plain(finished: Finished) -> None:
    """Hold a failed command to saying why in words, on stderr alone."""
    assert finished.code in (1, 2)
    assert finished.err
    assert "Traceback" not in finished.err
    assert finished.out == ""


async def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """A flag wins over the environment, and the environment over the file."""
    config = tmp_path / "tallygate.toml"
    first = catalogs.write(tmp_path, catalogs.OPEN, "file.yaml")
    second = catalogs.write(tmp_path, catalogs.OPEN, "environment.yaml")
    third = catalogs.write(tmp_path, catalogs.OPEN, "flag.yaml")
    config.write_text(f'catalog = "{first}"\nshards = 3\nlog_level = "error"\n')
    told = ("--config", config)
    assert (await shown(*told))["catalog"] == str(first)
    both = await shown(*told, catalog=second, log_level="debug")
    assert (both["catalog"], both["log_level"], both["shards"]) == (str(second), "debug", "3")
    assert (await shown(*told, "--catalog", third, catalog=second))["catalog"] == str(third)
    assert (await shown(config=config))["shards"] == "3"


async def test_serve_listens_where_the_strongest_says(tmp_path: Path, redis_url: str) -> None:
    """A running process obeys the same precedence: flag, environment, file."""
    config = tmp_path / "tallygate.yaml"
    config.write_text(f"grpc_address: unix:{tmp_path}/file.sock\nredis_url: {redis_url}\n")
    by_file: dict[str, Any] = {"config": config, "ops_address": FREE}
    by_environment = {**by_file, "grpc_address": f"unix:{tmp_path}/environment.sock"}
    flag = ("--grpc-address", f"unix:{tmp_path}/flag.sock")
    async with (
        # Each sidecar has a journal, and so a folder, of its own.
        started("serve", command=COMMAND, data_dir=tmp_path / "one", **by_file) as one,
        started("serve", command=COMMAND, data_dir=tmp_path / "two", **by_environment) as two,
        started(
            *("serve", *flag), command=COMMAND, data_dir=tmp_path / "three", **by_environment
        ) as three,
    ):
        await one.said(r"tallygate serve: unix:\S+/file\.sock;")
        await two.said(r"tallygate serve: unix:\S+/environment\.sock;")
        await three.said(r"tallygate serve: unix:\S+/flag\.sock;")


async def test_secrets_are_hidden() -> None:
    """`check-config` shows where servers are and never their passwords."""
    finished = await installed(
        *("check-config", "--json"),
        redis_url=f"redis://user:{SECRET}@redis.example:6379/0",
        postgres_dsn=f"postgresql://user:{SECRET}@db.example/usage",
    )
    assert finished.code == 0
    assert "redis.example" in finished.out
    assert "db.example" in finished.out
    assert SECRET not in finished.out + finished.err


async def test_every_fault_of_the_settings_is_told() -> None:
    """Faulty settings end with 1; each is named as it was given, with what was meant."""
    finished = await installed(
        *("check-config", "--json"), shards="many", grpc_adress="127.0.0.1:1", log_level="loud"
    )
    assert_plain(finished)
    assert finished.code == 1
    for name in ("TALLYGATE_SHARDS", "TALLYGATE_GRPC_ADRESS", "TALLYGATE_LOG_LEVEL"):
        assert name in finished.err
    assert "did you mean TALLYGATE_GRPC_ADDRESS?" in finished.err


@pytest.mark.parametrize("as_json", [True, False])
async def test_check_config_lists_faults_of_the_catalog(tmp_path: Path, as_json: bool) -> None:
    """`check-config` ends with 1 on a faulty catalog file, and lists its faults by line."""
    file = catalogs.write(tmp_path, catalogs.FAULTY)
    flags = ["--json"] if as_json else []
    finished = await tallygate("check-config", "--catalog", file, *flags)
    assert finished.code == 1
    if as_json:
        assert [row["line"] for row in rows_of(finished, "faults")] == [2, 4, 8]
    for word in ("open", "sum", "requests"):
        assert word in finished.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve",), "TALLYGATE_REDIS_URL"),
        (("ingest",), "TALLYGATE_REDIS_URL"),
        (("relay",), "TALLYGATE_POSTGRES_DSN"),
        (("control",), "TALLYGATE_REDIS_URL"),
        (("migrate",), "TALLYGATE_POSTGRES_DSN"),
        (("serve", "--with", "ingst"), "ingst"),
        (("serve", "--with", "ingest", "--redis-url", "unix:///nowhere"), "TALLYGATE_POSTGRES_DSN"),
        (("usage", "--by", "week"), "--by"),
        (("usage", "--control-address", NOWHERE), NOWHERE),
        (("apply", "-f", "absent.yaml"), "cannot be read"),
        (("import", "access-log", "absent.log"), "absent.log"),
        (("serve", "--config", "absent.toml"), "absent.toml"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_failures_are_one_sentence(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    """What cannot be done is told in words on stderr, with a failing exit code."""
    finished = await tallygate(*arguments, cwd=tmp_path)
    assert_plain(finished)
    assert words in finished.err


@pytest.mark.parametrize("arguments", [("check-config", "--json"), ("usage",), ("no-such-verb",)])
async def test_the_installed_command_does_the_same(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """What tests fork ends and speaks as what is installed, whatever was done before it."""
    given: dict[str, Any] = {"cwd": tmp_path, "control_address": NOWHERE, "log_level": "error"}
    await tallygate("check-config", cwd=tmp_path.parent, shards=3)
    assert await tallygate(*arguments, **given) == await installed(*arguments, **given)


async def test_an_interpreter_without_docstrings_answers(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With asserts and docstrings dropped, calls are decided, and errors say their reason."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    catalog = catalogs.write(tmp_path, catalogs.OPEN)
    settings = {"redis_url": redis_url, "catalog": catalog, "counter_rebuild": "none"}
    async with (
        site(tmp_path, **settings) as installation,
        channel((await installation.start("serve", command=COMMAND)).address) as opened,
    ):
        assert (await quota_pb2_grpc.QuotaServiceStub(opened).CheckAndConsume(charge())).allowed
        early = usage_pb2.RecordUsageRequest(tenant_id="acme", meter="requests", amount=1)
        early.event_time.FromDatetime(datetime.now(UTC) + timedelta(days=1))
        found = await failure(usage_pb2_grpc.UsageServiceStub(opened).RecordUsage(early))
        # What it would say otherwise is a docstring.
        assert found.message == found.reason == "EVENT_TIME_IN_FUTURE"


async def test_taken_address_is_named(tmp_path: Path, redis_url: str) -> None:
    """A second sidecar on an address that is taken ends with 1 and names it."""
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        first = await place.start("serve")
        second = await tallygate(
            *("serve", "--grpc-address", first.address, "--redis-url", redis_url),
            ops_address=FREE,
            data_dir=tmp_path / "second",
        )
    assert_plain(second)
    assert first.address in second.err


async def test_taken_ops_address_is_named(tmp_path: Path, redis_url: str) -> None:
    """A process whose ops address is taken ends with 1 and names it."""
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        first = await place.start("serve")
        taken = f"127.0.0.1:{first.ops_port}"
        second = await tallygate(
            "serve",
            grpc_address=FREE,
            ops_address=taken,
            redis_url=redis_url,
            data_dir=tmp_path / "second",
        )
    assert_plain(second)
    assert taken in second.err


async def test_doctor_finds_what_is_wrong(tmp_path: Path, empty_postgres_dsn: str) -> None:
    """`doctor` ends with 1 where something is wrong, and says what, as JSON too."""
    file = catalogs.write(tmp_path, catalogs.FAULTY)
    finished = await tallygate(
        *("doctor", "--json"),
        grpc_address=NOWHERE,
        control_address=NOWHERE,
        ops_address=NOWHERE,
        redis_url=f"unix://{tmp_path}/nowhere.sock",
        postgres_dsn=empty_postgres_dsn,
        catalog=file,
    )
    assert finished.code == 1
    found = {row["check"]: (row["state"], row["detail"]) for row in rows_of(finished, "doctor")}
    assert found[f"data plane at {NOWHERE}"][0] == "wrong"
    assert found[f"control at {NOWHERE}"][0] == "wrong"
    assert found["redis"][0] == "wrong"
    assert found["postgres"][0] == "wrong"
    assert "tallygate migrate" in found["postgres"][1]
    assert found["catalog file"][0] == "wrong"


async def test_doctor_finds_an_installation_well(
    tmp_path: Path, redis_url: str, empty_postgres_dsn: str
) -> None:
    """`migrate`, a running installation, and `doctor` ends with 0; `migrate` again does nothing."""
    dsn = empty_postgres_dsn
    first = await tallygate("migrate", "--json", postgres_dsn=dsn)
    assert first.code == 0
    assert rows_of(first, "applied")
    again = await tallygate("migrate", "--json", postgres_dsn=dsn)
    assert rows_of(again, "applied") == []
    file = catalogs.write(tmp_path, catalogs.OPEN)
    async with site(
        tmp_path, redis_url=redis_url, postgres_dsn=dsn, counter_rebuild="none"
    ) as place:
        whole = await place.start("serve", "--with", "ingest,relay,control")
        data, control = whole.address.split(", ")
        applied = await tallygate("apply", "-f", file, "--control-address", control)
        assert applied.code == 0

        async def ready() -> bool:
            return (await whole.page("/readyz"))[0] == 200

        await eventually(ready, what="a ready installation")
        places: dict[str, Any] = {
            "grpc_address": data,
            "control_address": control,
            "ops_address": f"127.0.0.1:{whole.ops_port}",
            "catalog": file,
        }
        finished = await tallygate("doctor", "--json", postgres_dsn=dsn, **places)
        without = await tallygate("doctor", "--json", **places)
    states = [(row["check"], row["state"]) for row in rows_of(finished, "doctor")]
    assert ("redis", "skipped") in states
    # Tests are the schema's owner, on a server that syncs nothing and that nothing confirms.
    assert {each for each in states if each[1] not in ("ok", "skipped")} == {
        ("postgres rights", "advised"),
        ("postgres confirmed", "advised"),
        ("postgres durable", "wrong"),
    }
    assert (finished.code, without.code) == (1, 0)


async def test_doctor_says_what_to_look_at(redis_url: str) -> None:
    """Every check that finds something says what; what is only advised is told apart."""
    finished = await tallygate("doctor", "--json", redis_url=redis_url)
    assert finished.code == 1
    found = [row for row in rows_of(finished, "doctor") if row["state"] in ("wrong", "advised")]
    states = {row["check"]: row["state"] for row in found}
    assert states["redis maxmemory"] == "advised"
    assert "wrong" in states.values()
    assert [row["check"] for row in found if not row["detail"]] == []


async def test_second_dev_on_a_folder_is_refused(tmp_path: Path) -> None:
    """A second `dev` on the same folder ends with 1, naming the folder; the first one stays."""
    async with site(tmp_path) as place:
        first, _ = await place.dev()
        free: dict[str, Any] = dict.fromkeys(
            ("grpc_address", "ops_address", "control_address"), FREE
        )
        second = await tallygate("dev", data_dir=tmp_path / "dev", **free)
        assert second.code == 1
        assert "Traceback" not in second.err
        assert "in use" in second.err
        assert (await first.page("/readyz"))[0] == 200
        assert await first.terminate() == 0


async def test_logs_are_json_lines(tmp_path: Path) -> None:
    """A process in production logs one JSON object a line, beside the line that says it is up."""
    async with site(
        tmp_path, redis_url=f"unix://{tmp_path}/nowhere.sock", counter_rebuild="none"
    ) as place:
        serve = await place.start("serve")
        await serve.process.said("redis_away_at_start")
        assert await serve.terminate() == 0
        lines = [line for line in serve.process.err if not line.startswith("tallygate serve: ")]
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
