"""What changes one document into another, and pods that are patched once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.domain.injection import Rules
from tallygate.domain.json_patch import Operation, alike, difference

from .pods import ASKS, Manifest, judged, patched, pod_of

SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "b", "1"])
KEYS = st.sampled_from(["name", "a", "a/b", "~", "~1", ""])
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)

NAMES = st.sampled_from(["web", "db", "init", "istio-proxy", "tallygate"])
PORTS = st.lists(
    st.fixed_dictionaries({"containerPort": st.sampled_from([80, 9464, 50051])}), max_size=2
)
MOUNTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["cache", "tallygate-socket"]),
            "mountPath": st.sampled_from(["/cache", "/run/tallygate", "/run/tallygate/deep"]),
        }
    ),
    max_size=2,
)
ENV = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["A", "TALLYGATE_ADDRESS"]), "value": st.just("x")}
    ),
    max_size=2,
)
CONTAINERS = st.fixed_dictionaries(
    {"name": NAMES, "image": st.just("i")},
    optional={
        "ports": PORTS,
        "volumeMounts": MOUNTS,
        "env": ENV,
        "restartPolicy": st.just("Always"),
    },
)
ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [
            *("mode", "init-order", "ops-port", "grpc-port", "socket-path", "journal-volume"),
            *("journal-size", "skip-containers", "fs-group", "cpu-limit", "memory-request"),
            *("log-level", "injected", "set.redis-timeout-ms", "image"),
        ]
    ).map("tallygate.dev/{}".format),
    st.sampled_from(
        [
            *("native", "container", "last", "9000", "9001", "/var/run/tg/a.sock", "emptyDir"),
            *("1Gi", "web", "none", "7", "500m", "debug", "other:1", "off", "ephemeral"),
        ]
    ),
    max_size=4,
)


@st.composite
def pods(draw: st.DrawFn) -> Manifest:
    """Return a pod of some shape: its containers, volumes, owner and annotations."""
    spec: Manifest = {
        "containers": draw(st.lists(CONTAINERS, min_size=1, max_size=3, unique_by=_name))
    }
    if draw(st.booleans()):
        spec["initContainers"] = draw(st.lists(CONTAINERS, max_size=3, unique_by=_name))
    if draw(st.booleans()):
        spec["volumes"] = [{"name": draw(st.sampled_from(["cache", "tallygate-journal"]))}]
    for key, values in (
        ("hostNetwork", st.booleans()),
        ("restartPolicy", st.sampled_from(["Always", "Never"])),
        ("securityContext", st.sampled_from([{}, {"fsGroup": 5}])),
        ("os", st.sampled_from([{"name": "linux"}, {"name": "windows"}])),
    ):
        if draw(st.integers(0, 3)) == 0:
            spec[key] = draw(values)
    metadata = {"name": "p", "labels": draw(st.sampled_from([ASKS, {}]))}
    if draw(st.booleans()):
        metadata["annotations"] = draw(ANNOTATIONS)
    return {"metadata": metadata, "spec": spec}


def _name(container: Manifest) -> str:
    return str(container["name"])


@given(DOCUMENTS, DOCUMENTS)
@settings(max_examples=100, deadline=None)
def test_a_difference_leads_there(old: Any, new: Any) -> None:
    """Applied in order by a receiver, what is said to differ gives the new document."""
    operations = [each.document() for each in difference(old, new)]
    assert alike(patched(old, operations), new)


@given(pods(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_pod_is_injected_once(pod: Manifest, by_namespace: bool) -> None:
    """The patch gives the verdict's pod; asked of it again, nothing changes; one sidecar is there.

    What a pod had stays in it, and one that is not injected is not changed at all.
    """
    rules = Rules(excluded=frozenset({"kube-system"}))
    once = judged(pod, rules, by_namespace=by_namespace)
    operations = [each.document() for each in difference(pod, once.pod)]
    assert alike(patched(pod, operations), once.pod)
    again = judged(once.pod, rules, by_namespace=by_namespace)
    assert again.outcome not in ("injected", "completed")
    assert again.pod == once.pod
    if once.outcome not in ("injected", "completed"):
        assert once.pod == pod
        return
    names = _names(pod_of(once))
    assert names.count("tallygate") == 1
    assert {*_names(pod)} <= set(names)


def _names(pod: Manifest) -> list[str]:
    spec = pod["spec"]
    return [_name(each) for each in (*spec.get("initContainers", []), *spec["containers"])]


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ([{"name": "a"}], [{"name": "s"}, {"name": "a", "x": 1}], ["/0/x", "/0"]),
        ([{"name": "a"}, {"name": "b"}], [{"name": "b"}], [""]),
        ({"a/b~": 1}, {"a/b~": 2}, ["/a~1b~0"]),
        ({"a": 1}, {"a": True}, ["/a"]),
        ({"a": 1}, {}, ["/a"]),
    ],
)
def test_what_stays_is_not_sent(old: Any, new: Any, paths: list[str]) -> None:
    """Members with names are followed by them; only what changed is named."""
    found = list(difference(old, new))
    assert [each.path for each in found] == paths
    assert all(isinstance(each, Operation) for each in found)
