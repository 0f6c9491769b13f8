"""The sidecar is one container, however it comes into a pod; and the README's example is one."""

import re
import shutil
from pathlib import Path
from typing import cast

import pytest
import yaml

from . import kubernetes, pages
from .cases import EVERYTHING, NEEDED, SECURED, SIDECARS, Values
from .helm import CHART, Helm, Refused
from .objects import Object, name, objects

INCLUDES = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: pieces}}
data:
{pieces}"""
PIECES = ("container", "initContainer", "volumes", "volumeClaimTemplates", "egress", "annotations")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the chart of an app that is as the README says, and shows every named template."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "templates").mkdir()
    dependency = {"name": "tallygate", "version": "0.1.0"}
    chart = {"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": [dependency]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (folder / "values.yaml").write_text(_example("# values.yaml of the app"))
    deployment = _example("# templates/deployment.yaml of the app")
    (folder / "templates" / "deployment.yaml").write_text(deployment)
    claims = _example("volumeClaimTemplates")
    stateful = deployment.replace("kind: Deployment", "kind: StatefulSet").replace(
        "  template:\n", f"  serviceName: shop\n{claims}  template:\n", 1
    )
    (folder / "templates" / "stateful.yaml").write_text(
        f"{{{{- if .Values.stateful }}}}\n{stateful}{{{{- end }}}}\n"
    )
    pieces = "".join(
        f'  {piece}: |\n    {{{{- include "tallygate.sidecar.{piece}"'
        ' (dict "root" .Subcharts.tallygate "with" .Values.with) | nindent 4 }}\n'
        for piece in PIECES
    )
    (folder / "templates" / "pieces.yaml").write_text(INCLUDES.format(pieces=pieces))
    shutil.copytree(CHART, folder / "charts" / "tallygate")
    return folder


def test_the_readmes_app_is_what_kubernetes_takes(helm: Helm, app: Path) -> None:
    """The oldest and the newest take the example, with the sidecar as a native one."""
    made = objects(helm.render({}, chart=app))
    assert [name(each) for each in made] == ["ConfigMap/pieces", "Deployment/shop"]
    versions = kubernetes.versions()
    for version in (versions[0], versions[-1]):
        assert kubernetes.faults(made[1], version) == []
    spec = _pod(made[1])
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    (shop,) = spec["containers"]
    assert shop["env"] == [
        {"name": "TALLYGATE_ADDRESS", "value": "unix:///run/tallygate/tallygate.sock"}
    ]
    assert spec["securityContext"] == {"fsGroup": 65532}
    volumes = {each["name"] for each in spec["volumes"]}
    assert {m["name"] for c in (sidecar, shop) for m in c["volumeMounts"]} == volumes


@pytest.mark.parametrize("values", [NEEDED, EVERYTHING, SIDECARS, SECURED])
def test_the_three_ways_give_one_container(helm: Helm, app: Path, values: Values) -> None:
    """Beside the app, before it, and by the injector: the same to the letter."""
    pieces = _pieces(helm, app, values)
    native = pieces["initContainer"]
    assert native.pop("restartPolicy") == "Always"
    assert native == pieces["container"]
    injected = _injected(helm, {**values, "injector": {"enabled": True}})
    assert injected["container"] == pieces["container"]
    assert injected["volumes"] == pieces["volumes"]


@pytest.mark.parametrize("values", [NEEDED, EVERYTHING, SIDECARS, SECURED])
def test_a_pod_has_what_its_sidecar_mounts(helm: Helm, app: Path, values: Values) -> None:
    """Mounts and volumes go together in every case, and Kubernetes takes them."""
    pieces = _pieces(helm, app, values)
    container, volumes = pieces["container"], pieces["volumes"]
    assert {each["name"] for each in container["volumeMounts"]} == {v["name"] for v in volumes}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shop"},
        "spec": {"containers": [container], "volumes": volumes},
    }
    for version in (kubernetes.versions()[0], kubernetes.versions()[-1]):
        assert kubernetes.faults(pod, version) == []


def test_a_stateful_app_keeps_its_journal(helm: Helm, app: Path) -> None:
    """A claim of the StatefulSet's own holds the journal: no volume of the pod does."""
    values: Values = {"stateful": True, "tallygate": {"sidecar": {"journal": {"kind": "claim"}}}}
    made = {name(each): each for each in objects(helm.render(values, chart=app))}
    each = made["StatefulSet/shop"]
    for version in (kubernetes.versions()[0], kubernetes.versions()[-1]):
        assert kubernetes.faults(each, version) == []
    (claim,) = each["spec"]["volumeClaimTemplates"]
    assert claim["metadata"] == {"name": "tallygate-data"}
    assert "tallygate-data" not in {volume["name"] for volume in _pod(each)["volumes"]}


def test_what_one_app_has_otherwise_is_its_own(helm: Helm, app: Path) -> None:
    """A dict outranks the values of `sidecar`, key by key, and the other values stay."""
    other = {"drainSeconds": 20, "resources": {"limits": {"memory": "1Gi"}}}
    container = _pieces(helm, app, NEEDED, other)["container"]
    assert _env(container)["TALLYGATE_DRAIN_GRACE_MS"] == "20000"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "160Mi"}


def test_the_journal_is_smaller_than_its_volume(helm: Helm, app: Path) -> None:
    """It is full before the volume is, as a volume that is full gets the pod evicted."""
    pieces = _pieces(helm, app, NEEDED, {"journal": {"size": "8Gi"}})
    assert int(_env(pieces["container"])["TALLYGATE_JOURNAL_MAX_BYTES"]) == 7 * 1024**3
    (data,) = [each for each in pieces["volumes"] if each["name"] == "tallygate-data"]
    assert data["emptyDir"] == {"sizeLimit": "8Gi"}


def test_whoever_may_call_can_reach_the_socket(helm: Helm, app: Path) -> None:
    """The socket's group is the one that the pod gives to every container."""
    injected = _injected(helm, {**NEEDED, "injector": {"enabled": True}})
    assert injected["container"]["securityContext"]["runAsGroup"] == injected["fsGroup"]
    assert injected["socket"] == {
        "volume": "tallygate-socket",
        "path": "/run/tallygate/tallygate.sock",
    }


def test_readiness_asks_for_nothing_beyond_the_process(helm: Helm, app: Path) -> None:
    """An app can be had to start without Redis; no probe then asks for it."""
    started = _pieces(helm, app, NEEDED)["container"]
    assert started["startupProbe"]["httpGet"]["path"] == "/readyz"
    alone = _pieces(helm, app, NEEDED, {"waitFor": "process"})["container"]
    assert alone["startupProbe"]["httpGet"]["path"] == "/livez"
    for container in (started, alone):
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"socket": {"enabled": False}}, "sidecar.socket.enabled or sidecar.tcp.port"),
        ({"tcp": {"port": 50051, "host": "0.0.0.0"}}, "sidecar.tls.secretName is required"),
        ({"settings": {"processes": 2}}, "sidecar.settings.processes"),
    ],
)
def test_what_cannot_work_is_refused(helm: Helm, app: Path, other: Values, said: str) -> None:
    """A sidecar that nobody can reach, or everybody, is none."""
    with pytest.raises(Refused, match=re.escape(said)):
        _pieces(helm, app, NEEDED, other)


def _example(holding: str) -> str:
    text = pages.HEAD.read_text(encoding="utf-8")
    (found,) = [
        each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if holding in each
    ]
    return str(found)


def _pieces(helm: Helm, app: Path, values: Values, other: Values | None = None) -> Object:
    given = {"tallygate": {**values, "install": False}, "with": other or {}}
    (found,) = [e for e in objects(helm.render(given, chart=app)) if e["kind"] == "ConfigMap"]
    return {key: yaml.safe_load(text) for key, text in found["data"].items()}


def _injected(helm: Helm, values: Values) -> Object:
    for each in objects(helm.render(values)):
        data = each.get("data")
        if isinstance(data, dict) and "sidecar.yaml" in data:
            return _object(data["sidecar.yaml"])
    raise AssertionError("there is no file for the injector")


def _object(text: str) -> Object:
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def _pod(each: Object) -> Object:
    return cast("Object", each["spec"]["template"]["spec"])


def _env(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}
