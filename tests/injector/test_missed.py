"""Which pods count as missed, and how they are told."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tallygate.adapters.prometheus.injector import InjectorMetrics
from tallygate.domain.injection import Rules
from tallygate.domain.injection_missed import Missed
from tallygate.flow.missed_injections import Look, LookForMissed
from tallygate.ports.kubernetes import KubernetesSilent
from tallygate.testing.kubernetes import FakeCluster

from .pods import SIDECAR, Manifest, injected, pod

OWNER = [{"kind": "ReplicaSet", "name": "web-abc", "controller": True}]


def _named(name: str, manifest: Manifest, **metadata: object) -> Manifest:
    manifest["metadata"] |= {"name": name, "namespace": "shop", **metadata}
    return manifest


def _looking(cluster: FakeCluster, metrics: InjectorMetrics) -> LookForMissed:
    rules = Rules(excluded=frozenset({"kube-system"}))
    return LookForMissed(cluster, lambda: SIDECAR, rules, metrics)


async def test_only_pods_without_what_they_ask_count() -> None:
    """One that has its sidecar, is leaving or has another's is well; the rest say why they lack."""
    spoilt = injected(pod())
    spoilt["metadata"]["annotations"]["tallygate.dev/mode"] = "wrong-by-now"
    cluster = FakeCluster(
        pods=[
            _named("well", injected(pod())),
            _named("spoilt", spoilt),
            _named("leaving", pod(), deletionTimestamp="2026-01-01T00:00:00Z"),
            _named("late", pod(), ownerReferences=OWNER),
            _named("host", pod(hostNetwork=True)),
            _named("wrong", pod(annotations={"mode": "sideways"})),
        ]
    )
    metrics = InjectorMetrics(CollectorRegistry())
    look = await _looking(cluster, metrics).run_once()
    why = {each.pod: (each.owner, each.reason.partition(":")[0]) for each in look.missed}
    assert why == {
        "late": (
            "ReplicaSet/web-abc",
            "it was created before it asked, or while the injector was away; create it anew",
        ),
        "host": ("", "spec.hostNetwork"),
        "wrong": ("", "tallygate.dev/mode"),
    }
    assert (look.asking, dict(look.by_namespace)) == (6, {"shop": 3})
    shown = metrics.registry.get_sample_value
    assert shown("tallygate_injector_asking_pods") == 6
    assert shown("tallygate_injector_missed_pods") == 3


async def test_a_missed_pod_is_logged_once() -> None:
    """Again only after it has been gone; and a look that fails leaves the figures."""
    cluster = FakeCluster(pods=[_named("late", pod())])
    metrics = InjectorMetrics(CollectorRegistry())
    looking = _looking(cluster, metrics)
    with capture_logs() as logs:
        await looking.run_once()
        await looking.run_once()
        late = cluster.pods.pop()
        await looking.run_once()
        cluster.pods.append(late)
        await looking.run_once()
        cluster.away = True
        with pytest.raises(KubernetesSilent):
            await looking.run_once()
    assert [each["pod"] for each in logs] == ["late", "late"]
    assert metrics.registry.get_sample_value("tallygate_injector_missed_pods") == 1


def test_many_are_told_together() -> None:
    """Of hundreds at once some are named, and the number of the others."""
    pods = [_named(f"late-{n}", pod()) for n in range(30)]
    metrics = InjectorMetrics(CollectorRegistry())
    found = [Missed("shop", str(each["metadata"]["name"]), "", "late") for each in pods]
    with capture_logs() as logs:
        metrics.looked(Look(30, found, {"shop": 30}))
    assert [each["event"] for each in logs].count("pod_without_sidecar") == 20
    assert logs[-1]["more"] == 10
