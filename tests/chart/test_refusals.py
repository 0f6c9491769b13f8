"""Values that cannot be meant are refused before anything is made, and the field is named."""

import copy
from typing import cast

import pytest

from .cases import EVERYTHING, NEEDED, SECURED, Values
from .helm import Helm, Refused

# What is set, to what, and what the refusal says.
WRONG: list[tuple[str, object, tuple[str, ...]]] = [
    ("ingres.replicas", 3, ("additional properties 'ingres' not allowed",)),
    ("ingest.replica", 3, ("/ingest", "'replica' not allowed")),
    ("ingest.replicas", "3", ("/ingest/replicas", "want integer")),
    ("ingest.replicas", -1, ("/ingest/replicas", "minimum")),
    ("ingest.autoscaling.kind", "vpa", ("/ingest/autoscaling/kind", "'keda'")),
    ("ingest.resources.limits", {"memory": "lots"}, ("/ingest/resources/limits/memory",)),
    ("ingest.resources.limit", {"memory": "1Gi"}, ("/ingest/resources", "'limit'")),
    ("settings.log_levle", "debug", ("/settings", "log_levle")),
    ("settings.redis_url", "redis://:secret@redis", ("/settings", "redis_url")),
    ("settings.drain_grace_ms", 5, ("/settings", "drain_grace_ms")),
    ("relay.settings.relay_poll_ms", [1], ("/relay/settings/relay_poll_ms",)),
    ("redis.url", "redis://redis", ("/redis/url", "want object")),
    ("redis.url.secretName", "Redis_Secret", ("/redis/url/secretName", "pattern")),
    ("image.digest", "latest", ("/image/digest", "pattern")),
    ("image.pullPolicy", "Sometimes", ("/image/pullPolicy",)),
    ("sidecar.journal.size", "1.5Gi", ("/sidecar/journal/size", "pattern")),
    ("sidecar.journal.kind", "hostPath", ("/sidecar/journal/kind", "'ephemeral'")),
    ("sidecar.socket.mode", "0666x", ("/sidecar/socket/mode",)),
    ("sidecar.socket.directory", "run", ("/sidecar/socket/directory", "pattern")),
    ("sidecar.tcp.port", 70_000, ("/sidecar/tcp/port", "maximum")),
    ("sidecar.ops.host", "everywhere", ("/sidecar/ops/host",)),
    ("pod.topologySpread", [{"maxSkew": 1}], ("/pod/topologySpread/0", "topologyKey")),
    ("pod.extraEnv", [{"value": "x"}], ("/pod/extraEnv/0", "name")),
    ("control.pod.nodeselector", {}, ("/control/pod", "nodeselector")),
    ("control.disruptionBudget.maxUnavailable", "half", ("/control/disruptionBudget",)),
    ("networkPolicy.redis.ports", [], ("/networkPolicy/redis/ports", "minItems")),
    ("networkPolicy.redis.ports", ["redis"], ("/networkPolicy/redis/ports/0",)),
    ("monitoring.interval", "soon", ("/monitoring/interval", "pattern")),
    ("injector.failurePolicy", "Maybe", ("/injector/failurePolicy",)),
    ("relay.secrets", [{"name": "a/b", "secretName": "x"}], ("/relay/secrets/0/name",)),
    ("dev.redis.enabled", "yes", ("/dev/redis/enabled", "want boolean")),
    # What is right alone and wrong together.
    ("redis.url.secretName", "", ("redis.url.secretName is required for",)),
    ("postgres.dsn.secretName", "", ("postgres.dsn.secretName is required for",)),
    ("ingest.autoscaling.kind", "keda", ("ingest.autoscaling.serverAddress is required",)),
    ("injector.enabled+sidecar.socket.enabled", False, ("sidecar.socket.enabled is required",)),
    ("injector.enabled+sidecar.journal.kind", "claim", ("sidecar.journal.kind: claim",)),
    (
        "injector.enabled+injector.certificate.source",
        "secret",
        ("injector.certificate", "is required where source is secret"),
    ),
    (
        "injector.enabled+sidecar.tcp",
        {"port": 50051, "host": "0.0.0.0"},
        ("sidecar.tls.secretName is required where sidecar.tcp.host",),
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "said"), WRONG, ids=[f"{path}={value}" for path, value, _ in WRONG]
)
def test_wrong_values_are_refused_by_name(
    helm: Helm, path: str, value: object, said: tuple[str, ...]
) -> None:
    """The refusal names the field, and says what it takes."""
    with pytest.raises(Refused) as refusal:
        helm.render(_with(path, value))
    for part in said:
        assert part in str(refusal.value)


def test_all_faults_are_told_at_once(helm: Helm) -> None:
    """Who has made three mistakes makes one correction."""
    values = _with("ingest.replicas", "3")
    values |= {"controll": {}, "image": {"pullPolicy": 7}}
    with pytest.raises(Refused) as refusal:
        helm.render(values)
    for part in ("/ingest/replicas", "controll", "/image/pullPolicy"):
        assert part in str(refusal.value)


def test_lint_tells_the_same(helm: Helm) -> None:
    """`helm lint --strict` names the field as an install does."""
    assert any("/ingest/replicas" in each for each in helm.lint(_with("ingest.replicas", "3")))


def test_a_catalog_is_not_sent_to_whoever_answers(helm: Helm) -> None:
    """Where control has TLS, applying needs the CA to believe."""
    values = copy.deepcopy(SECURED)
    catalog = cast("Values", values["catalog"])
    del catalog["caSecretName"]
    with pytest.raises(Refused, match=r"catalog\.caSecretName is required"):
        helm.render(values)


def test_the_right_ones_are_not(helm: Helm) -> None:
    """What the others are made of by one change is taken."""
    assert helm.render(_with("ingest.replicas", 3))
    assert helm.render(EVERYTHING)


def _with(path: str, value: object) -> Values:
    """Return the values that are needed, with one otherwise; before `+` is one that is true."""
    values = copy.deepcopy(NEEDED)
    *switches, last = path.split("+")
    for switch in switches:
        _set(values, switch, True)
    _set(values, last, value)
    return values


def _set(values: Values, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for key in parents:
        values = cast("Values", values.setdefault(key, {}))
    values[last] = value
