"""Each process takes the settings it is given: what helm lets pass, no process refuses."""

from pathlib import Path
from typing import cast

import pytest
import yaml

from tallygate.settings_sources import load_settings
from tallygate.wiring.roles import Role, check_roles

from .cases import CASES
from .helm import Helm
from .objects import Object, name, objects

SECRETS = {
    "TALLYGATE_REDIS_URL_FILE": "rediss://sidecar:secret@redis:6379/0",
    "TALLYGATE_POSTGRES_DSN_FILE": "postgresql://tallygate:secret@postgres/tallygate",
}


@pytest.mark.parametrize("case", CASES)
def test_processes_take_their_settings(helm: Helm, case: str, tmp_path: Path) -> None:
    """Every container's environment is whole and valid, and has what its role needs."""
    checked = []
    for each in objects(helm.render(CASES[case])):
        for container in _containers(each):
            verb = container["args"][0]
            environ = _environ(container, tmp_path)
            settings = load_settings(environ=environ)
            if verb in set(Role):
                check_roles(settings, frozenset({Role(verb)}))
            # No credentials of the ledger in an app's pod.
            assert verb != "serve" or settings.postgres_dsn is None
            checked.append(name(each))
    assert checked


def test_numbers_are_written_as_numbers(helm: Helm) -> None:
    """Helm reads every number as a float; a process gets what was meant."""
    made = {name(each): each for each in objects(helm.render(CASES["everything"]))}
    (container,) = _containers(made["Deployment/metering-ingest"])
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["TALLYGATE_INGEST_BATCH_MAX"] == "500"
    assert env["TALLYGATE_ANOMALY_SENSITIVITY"] == "4.5"


def _containers(each: Object) -> list[Object]:
    """Return the containers that run our command: of Deployments and Jobs, and the injector's."""
    data = each.get("data")
    if isinstance(data, dict) and "sidecar.yaml" in data:
        return [yaml.safe_load(data["sidecar.yaml"])["container"]]
    if each["kind"] not in {"Deployment", "Job"} or "-dev-" in name(each):
        return []
    return cast("list[Object]", each["spec"]["template"]["spec"]["containers"])


def _environ(container: Object, folder: Path) -> dict[str, str]:
    """Return the environment, with secrets in files that are there."""
    environ = {}
    for entry in container["env"]:
        key, value = entry["name"], entry["value"]
        if key in SECRETS:
            assert value.startswith("/etc/tallygate/")
            path = folder / Path(value).name
            path.write_text(SECRETS[key])
            value = str(path)
        environ[key] = value
    return environ
