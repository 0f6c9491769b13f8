"""The injector's own certificate: made, trusted before it serves, renewed, shared by replicas."""

from dataclasses import replace

import pytest
from cryptography import x509

from tallygate.adapters.certificates.authority import OwnAuthorities
from tallygate.domain.errors import InvalidField
from tallygate.flow.webhook_certificate import KeepCertificate, KeptWhere
from tallygate.ports.kubernetes import ChangedMeanwhile, KubernetesRefused, Pair
from tallygate.testing.kubernetes import FakeCluster

DAY_US = 86_400_000_000
NAMES = ("tallygate-injector.tallygate.svc",)
AUTHORITIES = OwnAuthorities()


class FakeClock:
    """A clock that a test turns."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Return what it was turned to."""
        return self._now_us

    def monotonic(self) -> float:
        """Return the same, in seconds."""
        return self._now_us / 1_000_000

    def advance_us(self, us: int) -> None:
        """Turn it on."""
        self._now_us += us


class Replica:
    """One injector of a cluster: what it serves with, and how it looks again."""

    def __init__(self, cluster: FakeCluster, clock: FakeClock, names: tuple[str, ...]) -> None:
        self.served: list[Pair] = []
        where = KeptWhere(cluster, cluster, AUTHORITIES)
        self.keep = KeepCertificate(where, names, clock, self.served.append)

    async def settle(self) -> None:
        """Run until there is nothing more to do."""
        while (await self.keep.run_once()).more:
            pass


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands in the year 2026."""
    return FakeClock(1_790_000_000_000_000)


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster with the webhook, and no Secret yet."""
    return FakeCluster()


async def test_the_first_run_makes_all_there_is(cluster: FakeCluster, clock: FakeClock) -> None:
    """An authority, then its trust, then a certificate of the service's name by it."""
    replica = Replica(cluster, clock, NAMES)
    await replica.settle()
    (pair,) = replica.served
    authority = cluster.kept.authority
    assert authority is not None
    assert cluster.webhook == cluster.kept.bundle == authority.certificate
    assert AUTHORITIES.issued(pair, authority, NAMES)
    assert b"PRIVATE" not in repr(cluster.kept).encode()
    await replica.settle()
    assert len(replica.served) == 1


async def test_nothing_is_served_that_is_not_trusted(
    cluster: FakeCluster, clock: FakeClock
) -> None:
    """Without its webhook, an injector has an authority and serves nothing by it."""
    cluster.webhook = None
    replica = Replica(cluster, clock, NAMES)
    assert (await replica.keep.run_once()).more
    with pytest.raises(KubernetesRefused):
        await replica.keep.run_once()
    assert replica.served == []
    assert cluster.kept.serving is None


async def test_replicas_end_with_the_same(cluster: FakeCluster, clock: FakeClock) -> None:
    """The slower one is told, reads what the faster did, and serves with that."""
    first, second = (Replica(cluster, clock, NAMES) for _ in range(2))
    stale = cluster.kept
    await first.settle()
    with pytest.raises(ChangedMeanwhile):
        await cluster.write(stale)
    await second.settle()
    assert first.served == second.served


async def test_a_certificate_is_renewed_in_time(cluster: FakeCluster, clock: FakeClock) -> None:
    """At two thirds of its time another takes its place, by the same authority."""
    replica = Replica(cluster, clock, NAMES)
    await replica.settle()
    clock.advance_us(59 * DAY_US)
    await replica.settle()
    assert len(replica.served) == 1
    clock.advance_us(2 * DAY_US)
    await replica.settle()
    assert len(replica.served) == 2
    assert AUTHORITIES.expires_us(replica.served[1].certificate) > clock.now_us() + 89 * DAY_US


async def test_an_authority_is_replaced_without_a_gap(
    cluster: FakeCluster, clock: FakeClock
) -> None:
    """While the new one is taken over the old is trusted too; once expired it is not."""
    replica = Replica(cluster, clock, NAMES)
    await replica.settle()
    old = cluster.kept.authority
    assert old is not None
    clock.advance_us(3_650 * DAY_US * 2 // 3 + DAY_US)
    assert (await replica.keep.run_once()).more
    # Here another replica may still serve by the old authority.
    await replica.settle()
    new = cluster.kept.authority
    assert new is not None
    assert cluster.webhook == new.certificate + old.certificate
    assert AUTHORITIES.issued(replica.served[-1], new, NAMES)
    clock.advance_us(1_300 * DAY_US)
    await replica.settle()
    assert cluster.webhook == new.certificate


@pytest.mark.parametrize("spoilt", ["names", "key", "certificate", "trust", "bundle"])
async def test_what_was_spoilt_is_made_anew(
    cluster: FakeCluster, clock: FakeClock, spoilt: str
) -> None:
    """Another name, a foreign key, what is no certificate, trust and bundle taken away."""
    await Replica(cluster, clock, NAMES).settle()
    serving = cluster.kept.serving
    assert serving is not None
    names: tuple[str, ...] = NAMES
    match spoilt:
        case "names":
            names = ("moved.tallygate.svc",)
        case "key":
            other = AUTHORITIES.found(clock.now_us())
            cluster.kept = replace(cluster.kept, serving=Pair(serving.certificate, other.key))
        case "certificate":
            cluster.kept = replace(cluster.kept, serving=Pair(b"nothing", serving.key))
        case "bundle":
            cluster.kept = replace(cluster.kept, bundle=b"")
        case _:
            cluster.webhook = b""
    replica = Replica(cluster, clock, names)
    await replica.settle()
    authority = cluster.kept.authority
    assert authority is not None
    assert AUTHORITIES.issued(replica.served[-1], authority, names)
    assert cluster.webhook == authority.certificate


def test_an_authority_signs_servers_alone(clock: FakeClock) -> None:
    """What it issues can sign nothing, and it can have no authority below it."""
    authority = AUTHORITIES.found(clock.now_us())
    pair = AUTHORITIES.issue(authority, NAMES, clock.now_us())
    signer, server = (
        x509.load_pem_x509_certificate(each.certificate) for each in (authority, pair)
    )
    limits = signer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(InvalidField):
        AUTHORITIES.expires_us(b"nothing")
    assert AUTHORITIES.unexpired(b"nothing", 0) == b""
