"""Secret ─▶ [ keep ] ─▶ the webhook's trust ─▶ the certificate that the injector serves with.

If we die here after a new authority was written and before it is trusted, the next run has it
trusted: nothing is served with it before. If we die after a certificate was issued and before it is
written, nobody has seen it.

Guarantees: no certificate is served with whose authority the API server has not been told of; an
old authority stays trusted until it has expired; replicas end with the same certificate.
Refuses to know: how certificates are made, and what listens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tallygate.ports import Clock
from tallygate.ports.kubernetes import (
    Authorities,
    CertificateSecret,
    KeptCertificates,
    Pair,
    WebhookTrust,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run did. After a change it is looked at again at once."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class KeptWhere:
    """Where certificates are kept, who trusts them, and what makes them."""

    secret: CertificateSecret
    webhook: WebhookTrust
    authorities: Authorities


class KeepCertificate:
    """Keeps a certificate of its own; `take` is given each that is to be served with."""

    def __init__(
        self, where: KeptWhere, names: Sequence[str], clock: Clock, take: Callable[[Pair], None]
    ) -> None:
        self._where = where
        self._names = tuple(names)
        self._clock = clock
        self._take = take
        self._served: Pair | None = None

    async def run_once(self) -> Kept:
        """Renew what is due, one step at a time, and serve with what is trusted.

        Raises `ChangedMeanwhile` where another replica was faster; the next run reads what it did.
        """
        now_us = self._clock.now_us()
        kept = await self._where.secret.read()
        authority = kept.authority
        if authority is None or self._where.authorities.due(authority.certificate, now_us):
            await self._where.secret.write(self._with_authority(kept, now_us))
            return Kept(more=True)
        # With the authority itself, whatever became of the bundle, and without what has expired.
        trusted = authority.certificate + kept.bundle
        await self._where.webhook.trust(self._where.authorities.unexpired(trusted, now_us))
        if kept.serving is None or self._outdated(kept.serving, authority, now_us):
            issued = self._where.authorities.issue(authority, self._names, now_us)
            await self._where.secret.write(replace(kept, serving=issued))
            return Kept(more=True)
        if kept.serving != self._served:
            self._take(kept.serving)
            self._served = kept.serving
        return Kept()

    def _with_authority(self, kept: KeptCertificates, now_us: int) -> KeptCertificates:
        authorities = self._where.authorities
        founded = authorities.found(now_us)
        # What serves now goes on until the new authority is trusted, and other replicas' until
        # they have read of it.
        bundle = authorities.unexpired(founded.certificate + kept.bundle, now_us)
        return replace(kept, authority=founded, bundle=bundle)

    def _outdated(self, serving: Pair, authority: Pair, now_us: int) -> bool:
        authorities = self._where.authorities
        return authorities.due(serving.certificate, now_us) or not authorities.issued(
            serving, authority, self._names
        )
