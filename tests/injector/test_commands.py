"""`tallygate injector` and its commands, as a person types them."""

import json
from pathlib import Path

import pytest
import yaml

from tests.e2e.forked import Command, run

from .conftest import Ground
from .pods import FILE, pod, sidecar_in

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {annotations: {tallygate.dev/log-levle: debug}}
    spec: {containers: [{name: web, image: "web:1"}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  jobTemplate:
    spec: {template: {spec: {restartPolicy: Never, containers: [{name: n, image: "n:1"}]}}}
"""


async def _run(folder: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    environment = {"PATH": "/usr/bin:/bin", "TALLYGATE_INJECTOR_CONFIG": str(FILE)}
    environment |= {f"TALLYGATE_INJECTOR_{name.upper()}": text for name, text in settings.items()}
    return await run(Command(("injector", *arguments), environment, str(folder)))


async def test_manifests_are_rendered(tmp_path: Path) -> None:
    """Each workload's template gets its sidecar, what is no workload stays; warnings are apart."""
    (tmp_path / "web.yaml").write_text(WEB)
    code, out, err = await _run(tmp_path, "render", "-f", "web.yaml")
    assert code == 0, err
    service, deployment, job = yaml.safe_load_all(out)
    assert service == next(yaml.safe_load_all(WEB))
    assert sidecar_in(deployment["spec"]["template"])["restartPolicy"] == "Always"
    inner = job["spec"]["jobTemplate"]["spec"]["template"]
    assert sidecar_in(inner)["restartPolicy"] == "Always"
    assert "did you mean" in " ".join(err.split())
    (tmp_path / "web.yaml").write_text(out)
    code, again, _ = await _run(tmp_path, "render", "-f", "web.yaml")
    assert (code, again) == (0, out)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "the manifests are no YAML"),
        ("kind: Pod\nmetadata: {annotations: {tallygate.dev/mode: x}}", "tallygate.dev/mode"),
    ],
)
async def test_what_cannot_be_rendered_is_said(tmp_path: Path, text: str, told: str) -> None:
    """In a line, with exit code 1, and nothing on stdout."""
    (tmp_path / "bad.yaml").write_text(text)
    code, out, err = await _run(tmp_path, "render", "-f", "bad.yaml")
    assert (code, out) == (1, "")
    assert told in err


async def test_missed_pods_are_reported(ground: Ground) -> None:
    """Exit code 1 and a line for each; 0 where all have theirs; 1 where nobody answers."""
    late = pod()
    late["metadata"]["name"] = "late"
    ground.api.put("/api/v1/namespaces/shop/pods/late", **late)
    url = {"kubernetes_url": ground.api.url}
    code, out, _ = await _run(ground.folder, "report", "--json", **url)
    assert code == 1
    (found,) = json.loads(out)["missed"]
    assert (found["namespace"], found["pod"]) == ("shop", "late")
    ground.api.objects.clear()
    code, _, err = await _run(ground.folder, "report", **url)
    assert (code, err.strip()) == (0, "0 pods ask for a sidecar, 0 are without one")
    code, _, err = await _run(ground.folder, "report", kubernetes_url="http://127.0.0.1:1")
    assert code == 1
    assert "does not answer" in err


async def test_halves_of_settings_are_refused(tmp_path: Path) -> None:
    """A certificate without its key, a Secret without its webhook, both ways at once."""
    for halves, told in (
        ({"cert_file": "a"}, "injector_key_file need each other"),
        ({"cert_secret": "a"}, "need each other"),
        (
            {"cert_file": "a", "key_file": "b"}
            | dict.fromkeys(("cert_secret", "webhook", "service"), "a"),
            "exclude each other",
        ),
    ):
        code, _, err = await _run(tmp_path, **halves)
        assert code == 1
        assert told in " ".join(err.split())
