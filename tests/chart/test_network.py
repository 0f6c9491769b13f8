"""Who may send what to whom, by the policies that are rendered: nobody else, and nothing else."""

from dataclasses import dataclass, field

import pytest

from .cases import CATALOG, EVERYTHING, NEEDED, Values
from .helm import NAMESPACE, RELEASE, Helm
from .objects import Object, objects


@dataclass(frozen=True)
class Peer:
    """A pod, by what policies see of it."""

    namespace: str
    labels: dict[str, str] = field(hash=False)


def ours(role: str) -> Peer:
    """Return a pod of the release."""
    return Peer(
        NAMESPACE,
        {
            "app.kubernetes.io/name": "tallygate",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": role,
        },
    )


STRANGER = Peer("elsewhere", {})
NEIGHBOUR = Peer(NAMESPACE, {"app": "shop"})
PROMETHEUS = Peer("monitoring", {})
OPERATOR = Peer("operators", {})
REDIS = Peer(NAMESPACE, {"app": "redis"})
POSTGRES = Peer(NAMESPACE, {"app": "postgres"})
STRIPE = Peer("the internet", {})

WITH_CATALOG: Values = {**NEEDED, "catalog": {"content": CATALOG}, "injector": {"enabled": True}}

# By default whoever reaches a port may scrape, and the namespace may call control.
USUAL: list[tuple[Peer, Peer, int, bool]] = [
    (ours("ingest"), REDIS, 6379, True),
    (ours("ingest"), POSTGRES, 5432, True),
    (ours("ingest"), STRIPE, 443, False),
    (ours("relay"), POSTGRES, 5432, True),
    (ours("relay"), STRIPE, 443, True),
    (ours("relay"), REDIS, 6379, False),
    (ours("control"), REDIS, 6379, True),
    (ours("control"), POSTGRES, 5432, True),
    (ours("control"), STRIPE, 443, True),
    (ours("control"), STRIPE, 25, False),
    (ours("migrate"), POSTGRES, 5432, True),
    (ours("migrate"), REDIS, 6379, False),
    (ours("catalog"), ours("control"), 50052, True),
    (ours("catalog"), POSTGRES, 5432, False),
    (ours("injector"), STRANGER, 6443, True),
    (ours("injector"), REDIS, 6379, False),
    (ours("ingest"), ours("control"), 50052, False),
    (ours("relay"), ours("ingest"), 9464, False),
    *[(ours("test"), ours(role), 9464, True) for role in ("ingest", "relay", "control")],
    (ours("test"), ours("control"), 50052, False),
    (NEIGHBOUR, ours("control"), 50052, True),
    (STRANGER, ours("control"), 50052, False),
    (STRANGER, ours("ingest"), 9464, True),
    (STRANGER, ours("ingest"), 22, False),
    (STRANGER, ours("injector"), 8443, True),
    (STRANGER, ours("migrate"), 9464, False),
    # What a later version adds has no policy yet: nothing comes in or goes out.
    (ours("unheard-of"), POSTGRES, 5432, False),
    (NEIGHBOUR, ours("unheard-of"), 9464, False),
]

NARROW: list[tuple[Peer, Peer, int, bool]] = [
    (PROMETHEUS, ours("ingest"), 9464, True),
    (STRANGER, ours("ingest"), 9464, False),
    (ours("test"), ours("ingest"), 9464, True),
    (OPERATOR, ours("control"), 50052, True),
    (NEIGHBOUR, ours("control"), 50052, False),
    (ours("catalog"), ours("control"), 50052, True),
    (ours("ingest"), POSTGRES, 5432, True),
    (ours("ingest"), NEIGHBOUR, 5432, False),
    (ours("ingest"), REDIS, 6379, False),  # it is at an address, which no pod here has
    (STRANGER, ours("relay"), 8080, True),
    (ours("relay"), STRANGER, 4317, True),
]


@pytest.mark.parametrize(
    ("values", "table"), [(WITH_CATALOG, USUAL), (EVERYTHING, NARROW)], ids=["usual", "narrow"]
)
def test_each_role_reaches_what_it_needs(
    helm: Helm, values: Values, table: list[tuple[Peer, Peer, int, bool]]
) -> None:
    """The policies let pass what the table says, and nothing beside it."""
    policies = [each for each in objects(helm.render(values)) if each["kind"] == "NetworkPolicy"]
    wrong = [
        (source, target, port)
        for source, target, port, meant in table
        if passes(policies, source, target, port) is not meant
    ]
    assert wrong == []


def passes(policies: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Say whether Kubernetes lets a connection pass: out of one, and in to the other."""
    out = _selecting(policies, source, "egress")
    into = _selecting(policies, target, "ingress")
    return _let(out, "egress", target, port) and _let(into, "ingress", source, port)


def _selecting(policies: list[Object], pod: Peer, direction: str) -> list[Object]:
    """Return the policies of a pod's namespace that say something of it in that direction."""
    specs = [each["spec"] for each in policies]
    return [
        spec
        for spec in specs
        if pod.namespace == NAMESPACE
        and direction.capitalize() in spec["policyTypes"]
        and _matches(spec["podSelector"], pod.labels)
    ]


def _let(selecting: list[Object], direction: str, other: Peer, port: int) -> bool:
    if not selecting:
        return True
    key = "to" if direction == "egress" else "from"
    rules = [rule for spec in selecting for rule in spec.get(direction, [])]
    return any(
        any(int(each["port"]) == port and each["protocol"] == "TCP" for each in rule["ports"])
        and (key not in rule or any(_peer(peer, other) for peer in rule[key]))
        for rule in rules
    )


def _peer(peer: Object, pod: Peer) -> bool:
    if "ipBlock" in peer:
        return False
    names = {"kubernetes.io/metadata.name": pod.namespace}
    inside = (
        _matches(peer["namespaceSelector"], names)
        if "namespaceSelector" in peer
        else pod.namespace == NAMESPACE
    )
    return inside and _matches(peer.get("podSelector", {}), pod.labels)


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
