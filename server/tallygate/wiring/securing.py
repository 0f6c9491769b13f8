"""Transport and identity of a process: its certificates, its rules for callers, its sockets' owner.

Guarantees: what is wrong at the start is told before anything listens; what goes wrong later is
told, and what was good stays in use. A process without certificates loads nothing to read them.
Refuses to know: which servers there are.
"""

import asyncio
import grp
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import structlog

from tallygate.adapters.catalog.identities import read_identities
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.file_stamp import stamp_of
from tallygate.adapters.prometheus.security import SecurityMetrics
from tallygate.api.caller import Permits
from tallygate.api.socket_owner import OWN, SocketOwner
from tallygate.domain.certificate import CertificatesInvalid, CurrentCredentials
from tallygate.domain.errors import Fault, TallygateError
from tallygate.domain.identity import IdentitiesInvalid
from tallygate.ports import Clock
from tallygate.settings import Settings

if TYPE_CHECKING:
    from tallygate.adapters.certificates.listener import FileCertificates

DAY_S: Final = 86_400
# Of the databases' addresses: what names a file of certificates.
REDIS_FILES: Final = ("ssl_ca_certs", "ssl_certfile")
POSTGRES_FILES: Final = ("sslrootcert", "sslcert")

log = structlog.get_logger(__name__)


class SocketGroupUnknown(TallygateError):
    """There is no such group."""

    reason = "INVALID_FIELD"


class Kept(Protocol):
    """Something in files that is kept up to date."""

    async def look(self) -> None:
        """Take over what has changed."""
        ...


@dataclass(frozen=True, slots=True)
class Secured:
    """What servers are told, nothing where nothing is set; and what has to be looked at."""

    owner: SocketOwner = OWN
    credentials: CurrentCredentials | None = None
    permits: Permits | None = None
    kept: Sequence[Kept] = ()

    async def look(self) -> None:
        """Take over what has changed in files."""
        for each in self.kept:
            await each.look()


def secured(settings: Settings, clock: Clock, told: SecurityMetrics) -> Secured:
    """Read everything once.

    Raises `CertificatesInvalid`, `IdentitiesInvalid` and `SocketGroupUnknown`.
    """
    owner = socket_owner(settings)
    kept: list[Kept] = []
    credentials, permits = None, None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        listener = _Listener(
            settings.tls_cert_file,
            settings.tls_key_file,
            settings.tls_client_ca_file,
            clock=clock,
            told=told,
        )
        credentials = listener.files.current
        kept.append(listener)
    if settings.tls_identities is not None:
        rules = _Rules(settings.tls_identities, told)
        permits = rules.permits
        kept.append(rules)
    others = others_files(settings)
    if others:
        kept.append(_Authorities(others, clock, told))
    return Secured(owner, credentials, permits, kept)


def socket_owner(settings: Settings) -> SocketOwner:
    """Return who Unix sockets belong to. Raises `SocketGroupUnknown`."""
    name = settings.socket_group
    if not name:
        return SocketOwner(int(settings.socket_mode, 8))
    try:
        group = int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError as error:
        message = f"TALLYGATE_SOCKET_GROUP: there is no group {name!r}"
        raise SocketGroupUnknown(message, field="socket_group") from error
    return SocketOwner(int(settings.socket_mode, 8), group)


def examined(settings: Settings) -> tuple[list[Fault], float | None]:
    """Return what is wrong with the files that are set, and the days until the next is over.

    A rule's fault has the file and the line in its path.
    """
    clock = SystemClock()
    faults: list[Fault] = []
    ends: list[float] = []
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        files = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        try:
            ends += files_of(*files, clock).expiries().values()
        except CertificatesInvalid as error:
            faults += error.faults
    if settings.tls_identities is not None:
        try:
            read_identities(settings.tls_identities)
        except IdentitiesInvalid as error:
            path = settings.tls_identities
            faults += [replace(each, path=f"{path}: {each.path}") for each in error.faults]
    days = (min(ends) - clock.now_us() / 1_000_000) / DAY_S if ends else None
    return faults, days


def ops_credentials(
    settings: Settings,
) -> tuple[CurrentCredentials | None, Callable[[], Awaitable[None]]]:
    """Return what the health of a group of processes proves itself with, and what renews it.

    What is wrong with a renewal is told by each process of the group, and not here once more.
    """

    async def nothing() -> None:
        """Keep what there is."""

    cert, key = settings.tls_cert_file, settings.tls_key_file
    if settings.tls_ops == "off" or cert is None or key is None:
        return None, nothing
    files = files_of(cert, key, None, SystemClock())

    async def look() -> None:
        with suppress(CertificatesInvalid):
            await asyncio.to_thread(files.refresh)

    return files.current, look


def files_of(cert: Path, key: Path, client_ca: Path | None, clock: Clock) -> "FileCertificates":
    """Return a listener's files, read. Raises `CertificatesInvalid`."""
    # It costs 10 MB of memory: a process without certificates does without.
    from tallygate.adapters.certificates.listener import (  # noqa: PLC0415
        FileCertificates,
        ListenerFiles,
    )

    return FileCertificates(ListenerFiles(cert, key, client_ca), clock)


def others_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files of certificates that the databases' addresses name."""
    urls = ((settings.redis_url, REDIS_FILES), (settings.postgres_dsn, POSTGRES_FILES))
    return tuple(
        Path(value)
        for url, names in urls
        if url is not None
        for name, values in parse_qs(urlsplit(url.get_secret_value()).query).items()
        if name in names
        for value in values
    )


class _Listener:
    """The certificate of our listeners."""

    def __init__(
        self, cert: Path, key: Path, client_ca: Path | None, *, clock: Clock, told: SecurityMetrics
    ) -> None:
        self.files = files_of(cert, key, client_ca, clock)
        self._cert = cert
        self._told = told
        told.watches(cert, (key, *((client_ca,) if client_ca is not None else ())))
        told.expires(self.files.expiries())
        if self.files.over():
            # It starts all the same, as a renewal is taken over, and sockets need none.
            log.error("certificate_is_not_valid_now", file=str(cert))

    async def look(self) -> None:
        """Take over what has changed, and tell how long it is good for."""
        try:
            changed = await asyncio.to_thread(self.files.refresh)
        except CertificatesInvalid as error:
            self._told.certificates_refused(error.faults)
            return
        if changed:
            self._told.reloaded(self._cert)
        self._told.expires(self.files.expiries())


class _Authorities:
    """The certificates by which we believe databases: their drivers read them, and we their end."""

    def __init__(self, paths: Sequence[Path], clock: Clock, told: SecurityMetrics) -> None:
        from tallygate.adapters.certificates.listener import AuthorityFiles  # noqa: PLC0415

        self._files = AuthorityFiles(paths, clock)
        self._told = told

    async def look(self) -> None:
        """Tell how long they are good for."""
        faults = await asyncio.to_thread(self._files.refresh)
        if faults:
            self._told.certificates_refused(faults)
        self._told.expires(self._files.expiries())


class _Rules:
    """The rules for callers."""

    def __init__(self, path: Path, told: SecurityMetrics) -> None:
        self._path = path
        self._told = told
        # Before it is read, so that what is written meanwhile is read next time.
        self._stamp = self._seen = stamp_of(path)
        self.permits = Permits(read_identities(path), told)

    async def look(self) -> None:
        """Take over rules that have changed since before the last look, and not since."""
        stamp = await asyncio.to_thread(stamp_of, self._path)
        if stamp == self._stamp:
            return
        if stamp != self._seen:
            self._seen = stamp
            return
        try:
            rules = await asyncio.to_thread(read_identities, self._path)
        except IdentitiesInvalid as error:
            self._told.identities_refused(error.faults)
            return
        self._stamp = stamp
        # On the loop's own thread, as every check is: none sees half of it.
        self.permits.replace(rules)
        self._told.identities_changed(len(rules.rules))
