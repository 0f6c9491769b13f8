"""What the chart renders is what it rendered, and what every Kubernetes since 1.29 takes."""

import copy

import pytest
import yaml

from . import kubernetes
from .cases import CASES, EVERYTHING, NEEDED, Values
from .helm import Helm
from .objects import Object, golden_files, name, objects, shipped


@pytest.fixture(scope="module")
def made(helm: Helm) -> dict[str, list[Object]]:
    """Return the objects of each case, rendered once."""
    return {case: objects(helm.render(values)) for case, values in CASES.items()}


def test_renders_equal_their_golden_files(helm: Helm) -> None:
    """Each case renders as it did; `python -m tests.chart.golden` takes over what is meant."""
    for path, text in golden_files(helm):
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.parametrize("version", kubernetes.versions())
def test_kubernetes_takes_it(made: dict[str, list[Object]], version: str) -> None:
    """Every object of every case holds the strict schema of the version."""
    faults = [
        f"{case}: {name(each)}: {fault}"
        for case, rendered in made.items()
        for each in rendered
        for fault in kubernetes.faults(each, version)
    ]
    assert faults == []


def test_the_schemas_are_strict(made: dict[str, list[Object]]) -> None:
    """A key that Kubernetes does not know is found, however deep."""
    deployment = copy.deepcopy(next(e for e in made["needed"] if e["kind"] == "Deployment"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["livenessProbe"]["httpGet"]["prot"] = 1
    (fault,) = kubernetes.faults(deployment, kubernetes.versions()[0])
    assert "spec.template.spec.containers.0.livenessProbe.httpGet" in fault
    assert "prot" in fault


def test_the_versions_reach_the_newest() -> None:
    """Nothing between 1.29 and the newest that there are schemas of is left out."""
    minors = [int(version.partition(".")[2]) for version in kubernetes.versions()]
    assert minors == list(range(29, max(minors) + 1))
    assert max(minors) >= 37


def test_an_upgrade_renders_the_same(helm: Helm) -> None:
    """What an install makes, an upgrade leaves as it is."""
    assert objects(helm.render(EVERYTHING, upgrade=True)) == objects(helm.render(EVERYTHING))


def test_links_lead_to_where_runbooks_are(helm: Helm) -> None:
    """Each alert and each dashboard links to the address that is given."""
    there = "https://git.example/docs"
    watching = {"rules": {"enabled": True}, "dashboards": {"enabled": True}}
    values = {**NEEDED, "monitoring": {**watching, "runbooksUrl": f"{there}/"}}
    made = [
        yaml.safe_dump(each)
        for each in objects(helm.render(values))
        if each["kind"] == "PrometheusRule" or "dashboard" in name(each)
    ]
    assert any("runbook_url" in each for each in made)
    assert not any("docs/runbooks" in each for each in made)
    for each in made:
        assert each.count("runbook_url:") == each.count(f"runbook_url: {there}/Tallygate")


def test_nothing_but_templates_renders_nothing(helm: Helm) -> None:
    """With install=false there is no object at all."""
    assert objects(helm.render({"install": False})) == []


def test_rules_and_dashboards_are_as_in_their_files(helm: Helm) -> None:
    """Prometheus' own templates and Grafana's variables pass through helm untouched."""
    made = {name(each): each for each in objects(helm.render(EVERYTHING))}
    for path in shipped("dashboards", ".json"):
        config = made[f"ConfigMap/metering-dashboard-{path.stem.replace('_', '-')}"]
        assert config["data"][path.name].strip() == path.read_text(encoding="utf-8").strip()
    for path in shipped("rules", ".yaml"):
        rule = made[f"PrometheusRule/metering-{path.stem}"]
        assert rule["spec"] == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_pod_is_confined(made: dict[str, list[Object]]) -> None:
    """No pod runs as root, writes to its image, gains rights, or holds a token it does not need."""
    for each in made["everything"] + made["dev"]:
        for spec in _pods(each):
            assert spec["enableServiceLinks"] is False
            assert spec["automountServiceAccountToken"] is (name(each).endswith("-injector"))
            rights = spec["securityContext"]
            assert rights["runAsNonRoot"] is True
            assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert container["resources"]["limits"]["memory"]


def test_every_mount_has_its_volume(made: dict[str, list[Object]]) -> None:
    """Containers mount what their pod has, and pods have what some container mounts."""
    for rendered in made.values():
        for each in rendered:
            for spec in _pods(each):
                mounted = {m["name"] for c in spec["containers"] for m in c["volumeMounts"]}
                assert mounted == {volume["name"] for volume in spec["volumes"]}, name(each)


def test_no_secret_is_rendered(made: dict[str, list[Object]]) -> None:
    """Secrets are named, never held: the one of the servers for trying out says what it is."""
    for case, rendered in made.items():
        secrets = [each for each in rendered if each["kind"] == "Secret"]
        assert bool(secrets) is (case == "dev")
        for each in secrets:
            assert "tallygate.dev/not-for-production" in str(each["metadata"])


def test_a_pod_outlives_its_drain(made: dict[str, list[Object]]) -> None:
    """Kubernetes waits for longer than the process does, and no hook ends calls before it."""
    roles = [each for each in made["everything"] if each["kind"] == "Deployment"]
    assert len(roles) == 4
    for each in roles:
        (spec,) = _pods(each)
        (container,) = spec["containers"]
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        drain_s = int(env["TALLYGATE_DRAIN_GRACE_MS"]) / 1000
        # A group of processes is given ten seconds after its drain.
        assert spec["terminationGracePeriodSeconds"] >= drain_s + 15
        assert "lifecycle" not in container


def test_migration_comes_first(helm: Helm) -> None:
    """It is a hook before all else; with a Postgres of the release's own it is a plain Job."""
    hooked = _one(helm, NEEDED, "Job/tg-tallygate-migrate")
    assert "pre-install,pre-upgrade" in str(hooked["metadata"])
    dev: Values = {"dev": {"redis": {"enabled": True}, "postgres": {"enabled": True}}}
    assert "helm.sh/hook" not in str(_one(helm, dev, "Job/tg-tallygate-migrate-1"))


def _one(helm: Helm, values: Values, wanted: str) -> Object:
    (found,) = [each for each in objects(helm.render(values)) if name(each) == wanted]
    return found


def _pods(each: Object) -> list[Object]:
    """Return the pod of an object, if it has one."""
    spec = each.get("spec") or {}
    if each["kind"] == "Pod":
        return [spec]
    template = spec.get("template")
    return [template["spec"]] if isinstance(template, dict) else []
