"""Which pods get a sidecar, where it goes, and what their containers get of it."""

from dataclasses import replace

import pytest

from tallygate.domain.errors import InvalidField
from tallygate.domain.injection import HostNetwork, Outcome, Rules
from tallygate.domain.injection_sidecar import Mode

from .pods import (
    ASKS,
    SIDECAR,
    Manifest,
    injected,
    judged,
    of_name,
    pod,
    pod_of,
    sidecar_in,
    variables,
)

ADDRESS = "unix:///run/tallygate/tallygate.sock"
JOB = [{"kind": "Job", "name": "nightly", "controller": True}]


def test_a_labelled_pod_gets_a_native_sidecar_first() -> None:
    """The sidecar starts before all else, and every container that runs beside it reaches it."""
    found = injected(pod(initContainers=[{"name": "migrate", "image": "m"}]))["spec"]
    assert [each["name"] for each in found["initContainers"]] == ["tallygate", "migrate"]
    assert found["initContainers"][0]["restartPolicy"] == "Always"
    for container in (found["initContainers"][1], found["containers"][0]):
        assert variables(container)["TALLYGATE_ADDRESS"] == ADDRESS
        mount = of_name(container["volumeMounts"], "tallygate-socket")
        assert mount == {
            "name": "tallygate-socket",
            "mountPath": "/run/tallygate",
            "readOnly": True,
        }
    names = [each["name"] for each in found["volumes"]]
    assert names == ["tallygate-socket", "tallygate-journal", "tallygate-redis"]
    assert found["securityContext"] == {
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    assert found["imagePullSecrets"] == [{"name": "registry"}]


def test_what_the_pod_says_itself_stays() -> None:
    """Its group, its address, its annotations and its labels win over the sidecar's."""
    given = pod(securityContext={"fsGroup": 5})
    given["metadata"]["annotations"]["prometheus.io/scrape"] = "false"
    given["spec"]["containers"][0]["env"] = [{"name": "TALLYGATE_ADDRESS", "value": "mine"}]
    found = injected(given)
    assert found["spec"]["securityContext"] == {"fsGroup": 5}
    assert found["metadata"]["annotations"]["prometheus.io/scrape"] == "false"
    assert variables(found["spec"]["containers"][0]) == {"TALLYGATE_ADDRESS": "mine"}


@pytest.mark.parametrize(
    ("label", "by_namespace", "outcome"),
    [
        ("", False, Outcome.NOT_ASKED),
        ("", True, Outcome.INJECTED),
        ("true", False, Outcome.INJECTED),
        ("false", True, Outcome.NOT_ASKED),
        ("yes", False, Outcome.NOT_ASKED),
    ],
)
def test_nothing_is_injected_unasked(label: str, by_namespace: bool, outcome: Outcome) -> None:
    """A pod asks by its label or its namespace's; its own label says no even then."""
    labels = {"tallygate.dev/inject": label} if label else {}
    verdict = judged(pod(labels=labels), by_namespace=by_namespace)
    assert verdict.outcome is outcome
    assert (label == "yes") == any("neither true nor false" in each for each in verdict.warnings)


def test_the_label_as_an_annotation_is_told() -> None:
    """Who annotates what ought to be a label hears of it."""
    verdict = judged(pod(labels={}, annotations={"inject": "true"}))
    assert verdict.outcome is Outcome.NOT_ASKED
    assert "only the label" in verdict.warnings[0]


def test_excluded_pods_are_left_alone() -> None:
    """In excluded namespaces, and of mirror pods, nothing is changed, and it is said why."""
    rules = Rules(excluded=frozenset({"kube-system"}))
    mirror = pod()
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
    for verdict in (judged(pod(), rules, namespace="kube-system"), judged(mirror, rules)):
        assert verdict.outcome is Outcome.EXCLUDED
        assert "no sidecar is injected" in verdict.warnings[0]


@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_no_pod_gets_a_second_sidecar(place: str) -> None:
    """A pod that includes the sidecar by itself is left as it is, whichever way it has it."""
    given = pod()
    given["spec"].setdefault(place, []).append({"name": "tallygate", "image": "tallygate:1"})
    verdict = judged(given)
    assert (verdict.outcome, verdict.pod) == (Outcome.PRESENT, given)
    assert "already" in verdict.warnings[0]


def test_containers_that_came_later_reach_the_sidecar_too() -> None:
    """Invoked again after another webhook, it completes what is new, and then nothing more."""
    once = injected(pod(annotations={"socket-path": "/var/run/tg/a.sock"}))
    once["spec"]["containers"].append({"name": "late", "image": "l"})
    again = judged(once)
    assert again.outcome is Outcome.COMPLETED
    late = of_name(pod_of(again)["spec"]["containers"], "late")
    assert variables(late) == {"TALLYGATE_ADDRESS": "unix:///var/run/tg/a.sock"}
    assert judged(pod_of(again)).outcome is Outcome.PRESENT


@pytest.mark.parametrize("ends", [{"restartPolicy": "Never"}, {"owner": True}])
def test_a_job_completes(ends: Manifest) -> None:
    """A pod that ends gets a native sidecar, even where ordinary ones are usual."""
    given = pod(**{key: value for key, value in ends.items() if key != "owner"})
    if "owner" in ends:
        given["metadata"]["ownerReferences"] = JOB
    found = injected(given, sidecar=replace(SIDECAR, mode=Mode.CONTAINER))
    assert sidecar_in(found)["restartPolicy"] == "Always"
    asked = {**given["metadata"]["annotations"], "tallygate.dev/mode": "container"}
    given["metadata"]["annotations"] = asked
    refused = judged(given)
    assert refused.outcome is Outcome.REFUSED
    assert refused.message.startswith("tallygate.dev/mode: a pod that ends needs native")


def test_old_clusters_refuse_what_they_cannot_have() -> None:
    """Without native sidecars, a job that asks is refused, and one of a namespace only warned."""
    old = replace(SIDECAR, mode=Mode.CONTAINER, native_sidecars=False)
    job = pod(restartPolicy="OnFailure")
    assert judged(job, sidecar=old).outcome is Outcome.REFUSED
    mine = pod(restartPolicy="OnFailure", labels={})
    declined = judged(mine, sidecar=old, by_namespace=True)
    assert (declined.outcome, declined.pod) == (Outcome.DECLINED, mine)
    assert "native sidecars" in declined.warnings[0]
    assert judged(pod(annotations={"mode": "native"}), sidecar=old).outcome is Outcome.REFUSED


def test_an_ordinary_container_comes_last() -> None:
    """In container mode the app stays the pod's first container, and init containers are alone."""
    found = injected(
        pod(annotations={"mode": "container"}, initContainers=[{"name": "m", "image": "m"}])
    )["spec"]
    assert [each["name"] for each in found["containers"]] == ["web", "tallygate"]
    assert "restartPolicy" not in found["containers"][1]
    assert found["initContainers"] == [{"name": "m", "image": "m"}]


def test_the_sidecar_may_come_after_other_init_containers() -> None:
    """With `init-order: last` what comes before the sidecar does not wait for its socket."""
    found = injected(
        pod(annotations={"init-order": "last"}, initContainers=[{"name": "m", "image": "m"}])
    )["spec"]
    assert [each["name"] for each in found["initContainers"]] == ["m", "tallygate"]
    assert variables(found["initContainers"][0]) == {}


def test_pods_of_the_nodes_network_are_refused() -> None:
    """One that asks is refused with the reason; one whose namespace asks is left as it is."""
    verdict = judged(pod(hostNetwork=True))
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.message.startswith("spec.hostNetwork:")
    declined = judged(pod(hostNetwork=True, labels={}), by_namespace=True)
    assert declined.outcome is Outcome.DECLINED


def test_pods_of_the_nodes_network_take_no_port_of_it() -> None:
    """Where they are allowed, everything of theirs is a socket, probes too."""
    rules = Rules(host_network=HostNetwork.SOCKET)
    found = sidecar_in(injected(pod(hostNetwork=True), rules))
    assert variables(found)["TALLYGATE_GRPC_ADDRESS"] == "unix:/run/tallygate/tallygate.sock"
    assert variables(found)["TALLYGATE_OPS_ADDRESS"] == "unix:/run/tallygate/ops.sock"
    assert found["ports"] == []
    probe = ["python", "-m", "tallygate.probe", "unix:/run/tallygate/ops.sock"]
    assert found["livenessProbe"] == {"exec": {"command": [*probe, "/livez"]}}
    assert found["startupProbe"] == {"exec": {"command": [*probe, "/readyz"]}, "periodSeconds": 1}
    chosen = pod(hostNetwork=True, annotations={"ops-port": "19464"})
    assert variables(sidecar_in(injected(chosen, rules)))["TALLYGATE_OPS_ADDRESS"].endswith("19464")


def test_ports_that_the_app_has_are_not_taken() -> None:
    """A port of the app's is refused with the annotation that moves ours, which then helps."""
    given = pod()
    given["spec"]["containers"][0]["ports"] = [{"containerPort": 9464}]
    refused = judged(given)
    assert refused.outcome is Outcome.REFUSED
    assert "tallygate.dev/ops-port" in refused.message
    given["metadata"]["annotations"] = {"tallygate.dev/ops-port": "9465"}
    found = sidecar_in(injected(given))
    assert variables(found)["TALLYGATE_OPS_ADDRESS"] == "0.0.0.0:9465"
    assert [each["containerPort"] for each in found["ports"]] == [9465, 50051]
    assert found["livenessProbe"]["httpGet"]["port"] == 9465
    assert found["startupProbe"]["httpGet"]["port"] == "tallygate-ops"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"volumes": [{"name": "tallygate-socket", "emptyDir": {}}]}, "spec.volumes"),
        ({"os": {"name": "windows"}}, "spec.os"),
        (
            {
                "containers": [
                    {"name": "c", "volumeMounts": [{"name": "x", "mountPath": "/run/tallygate/"}]}
                ]
            },
            "container c mounts x at /run/tallygate/",
        ),
    ],
)
def test_pods_that_cannot_have_one_are_refused(spec: Manifest, why: str) -> None:
    """What stands in the way is named; of a pod that did not ask by itself it is a warning."""
    verdict = judged(pod(**spec))
    assert verdict.outcome is Outcome.REFUSED
    assert why in verdict.message
    assert judged(pod(labels={}, **spec), by_namespace=True).outcome is Outcome.DECLINED


def test_persistent_volumes_get_a_word() -> None:
    """A group that is set for volumes of the app's own is told, and can be left out."""
    volumes = [{"name": "store", "persistentVolumeClaim": {"claimName": "s"}}]
    (note,) = judged(pod(volumes=volumes)).warnings
    assert "store" in note
    without = injected(pod(volumes=volumes, annotations={"fs-group": "none"}))
    assert "securityContext" not in without["spec"]


def test_containers_may_do_without() -> None:
    """Named containers, and those that the file names, get neither address nor socket."""
    containers = [{"name": name, "image": "i"} for name in ("web", "proxy", "istio-proxy")]
    given = pod(containers=containers, annotations={"skip-containers": "proxy, ghost"})
    verdict = judged(given)
    found = pod_of(verdict)["spec"]["containers"]
    assert [bool(variables(each)) for each in found] == [True, False, False]
    assert verdict.warnings == ("tallygate.dev/skip-containers: the pod has no container ghost",)


def test_what_is_no_pod_is_told_by_its_path() -> None:
    """A part of the wrong shape is named."""
    with pytest.raises(InvalidField) as caught:
        judged({"metadata": {"labels": ASKS}, "spec": []})
    assert caught.value.field == "spec"
