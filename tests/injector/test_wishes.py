"""What annotations ask of a sidecar, and how they are refused."""

import pytest

from tallygate.domain.injection import Outcome, Rules
from tallygate.wiring.injection_rules import settings_faults

from .pods import Manifest, injected, judged, of_name, pod, sidecar_in, variables

RULES = Rules(check=settings_faults)


def test_annotations_shape_the_sidecar() -> None:
    """Image, resources, log level, ports, the socket and settings are the pod's own."""
    found = injected(
        pod(
            annotations={
                "image": "registry.example:5000/tallygate@sha256:" + "0" * 64,
                "image-pull-policy": "Always",
                "cpu-limit": "1.5",
                "memory-request": "128Mi",
                "log-level": "debug",
                "socket-path": "/var/run/quota/q.sock",
                "grpc-port": "50052",
                "set.redis-timeout-ms": "250",
                "set.leases": "on",
            }
        ),
        RULES,
    )
    sidecar = sidecar_in(found)
    assert sidecar["image"].endswith("0" * 64)
    assert sidecar["imagePullPolicy"] == "Always"
    assert sidecar["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": "256Mi", "cpu": "1.5"},
    }
    shown = variables(sidecar)
    assert shown["TALLYGATE_LOG_LEVEL"] == "debug"
    assert shown["TALLYGATE_REDIS_TIMEOUT_MS"] == "250"
    assert shown["TALLYGATE_LEASES"] == "on"
    assert shown["TALLYGATE_GRPC_ADDRESS"] == "unix:/var/run/quota/q.sock,127.0.0.1:50052"
    assert [each["containerPort"] for each in sidecar["ports"]] == [9464, 50052]
    (app,) = found["spec"]["containers"]
    for container in (sidecar, app):
        mount = of_name(container["volumeMounts"], "tallygate-socket")
        assert mount["mountPath"] == "/var/run/quota"
    assert variables(app)["TALLYGATE_ADDRESS"] == "unix:///var/run/quota/q.sock"


@pytest.mark.parametrize(
    ("asked", "volume"),
    [
        ({"journal-size": "5Gi"}, {"emptyDir": {"sizeLimit": "5Gi"}}),
        ({"journal-volume": "claim/mine-0"}, {"persistentVolumeClaim": {"claimName": "mine-0"}}),
        (
            {
                "journal-volume": "ephemeral",
                "journal-size": "1Gi",
                "journal-storage-class": "fast",
            },
            {
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "1Gi"}},
                            "storageClassName": "fast",
                        }
                    }
                }
            },
        ),
    ],
)
def test_the_journal_lies_where_it_is_asked(asked: dict[str, str], volume: Manifest) -> None:
    """A folder of the node, a claim, or a claim made for the pod."""
    found = injected(pod(annotations=asked))
    journal = of_name(found["spec"]["volumes"], "tallygate-journal")
    assert journal == {"name": "tallygate-journal", **volume}


def test_a_sidecar_may_do_without_journal() -> None:
    """`off` is a setting of the sidecar; its folder stays, for its id."""
    found = injected(pod(annotations={"journal-volume": "off"}))
    assert variables(sidecar_in(found))["TALLYGATE_JOURNAL"] == "off"
    assert of_name(found["spec"]["volumes"], "tallygate-journal")["emptyDir"] is not None


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("image", "not an image", "must be an image"),
        ("image-pull-policy", "always", "must be one of Always"),
        ("cpu-limit", "much", "must be a quantity"),
        ("cpu-request", "0", "must be above 0"),
        ("memory-request", "1Gi", "the request of 1Gi would be above the limit of 256Mi"),
        ("log-level", "loud", "must be one of debug"),
        ("socket-path", "relative/a.sock", "must be an absolute path"),
        ("socket-path", "/run/../etc/a.sock", "must be an absolute path"),
        ("socket-path", "/a.sock", "must lie in a folder of its own"),
        ("socket-path", "/run/a:b/c.sock", "must hold no colon"),
        ("socket-path", f"/run/{'x' * 100}/a.sock", "is longer than 100 bytes"),
        ("socket-path", "/etc/tallygate/redis/a.sock", "lies where the sidecar mounts"),
        ("grpc-port", "80", "must be a port from 1024"),
        ("ops-port", "70000", "must be a port from 1024"),
        ("journal-volume", "disk", "must be one of emptyDir"),
        ("journal-volume", "claim/../x", "is no name of a claim"),
        ("journal-volume", "ephemeral", "ephemeral needs"),
        ("journal-storage-class", "fast", "needs tallygate.dev/journal-volume: ephemeral"),
        ("journal-size", "0.5", "must be a size"),
        ("mode", "daemon", "must be one of native, container"),
        ("init-order", "middle", "must be one of first, last"),
        ("fs-group", "wheel", "must be none or a group's number"),
        ("skip-containers", " , ", "must name containers"),
        ("set.redis-timeout-ms", "soon", "valid integer"),
        ("set.redis-time-out-ms", "9", "did you mean redis-timeout-ms?"),
        ("set.redis-url", "redis://x", "may hold a secret"),
        ("set.grpc-address", "0.0.0.0:1", "is decided by socket-path and grpc-port"),
        ("set.injector-report-ms", "9", "there is no such setting"),
        ("set.retention-event-months", "3", "must be 0, for ever, or at least"),
    ],
)
def test_a_wrong_value_names_its_annotation(name: str, value: str, why: str) -> None:
    """The pod is refused, and the message begins with the annotation and says what it may be."""
    verdict = judged(pod(annotations={name: value}), RULES)
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.message.startswith(f"tallygate.dev/{name}: ")
    assert why in verdict.message


def test_all_faults_are_told_at_once() -> None:
    """Who mends one does not then hear of the next."""
    verdict = judged(pod(annotations={"mode": "x", "ops-port": "y", "grpc-port": "z"}))
    assert verdict.message.count("tallygate.dev/") == 3


def test_requests_above_limits_are_found_together() -> None:
    """Two annotations that are each right and wrong together are told of."""
    verdict = judged(pod(annotations={"cpu-request": "2", "cpu-limit": "1500m"}))
    assert verdict.message == "tallygate.dev/cpu-request: is above tallygate.dev/cpu-limit"


def test_a_setting_from_a_file_is_not_set_beside_it() -> None:
    """What the injector's file takes from a file cannot be given a second value."""
    rules = Rules(check=lambda _: {})
    verdict = judged(pod(annotations={"set.redis-url": "redis://x"}), rules)
    assert "comes from a file of the injector's" in verdict.message


def test_unknown_annotations_are_warned_of() -> None:
    """A name that we do not know stops nobody, and is told with what was meant."""
    verdict = judged(pod(annotations={"log-levle": "debug"}))
    assert verdict.outcome is Outcome.INJECTED
    (told,) = verdict.warnings
    assert told.startswith("tallygate.dev/log-levle: there is no such annotation")
    assert told.endswith("did you mean tallygate.dev/log-level?")
