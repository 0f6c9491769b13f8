"""Certificates and keys in files: read, checked together, and read again when they change.

Guarantees: what is in use was whole and good together; files that are not, say half of a renewal,
change nothing until they are. A good pair is never given up for one that is over or not begun.
Refuses to know: who uses them, and how often anybody looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tallygate.adapters.file_stamp import Stamp, stamp_of
from tallygate.domain.certificate import CertificatesInvalid, ServerCredentials
from tallygate.domain.errors import Fault
from tallygate.ports import Clock

# A bundle of all public authorities has a fifth of this; a wrong path may lead to anything.
FILE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ListenerFiles:
    """Where a listener's certificate, its key and the authority of its clients are."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """Return them all."""
        return (self.certificate, self.key, *((self.client_ca,) if self.client_ca else ()))


@dataclass(frozen=True, slots=True)
class _Read:
    credentials: ServerCredentials
    begins: datetime
    ends: datetime
    # When each of the clients' authorities is over.
    roots_end: Sequence[datetime]


class FileCertificates:
    """A listener's credentials, as its files last had them good. `current` is for any thread."""

    def __init__(self, files: ListenerFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        # Before they are read, so that what is written meanwhile is read next time.
        self._stamps = self._looked()
        self._seen = self._stamps
        self._read = _read_listener(files)

    def current(self) -> ServerCredentials:
        """Return the credentials in use: the same object until they change."""
        return self._read.credentials

    def over(self) -> bool:
        """Say whether the certificate in use is over, or not begun: nobody believes it."""
        return not self._read.begins <= _now(self._clock) <= self._read.ends

    def expiries(self) -> Mapping[Path, float]:
        """Return when what each file holds is over, in seconds since the Unix epoch."""
        found = {self._files.certificate: self._read.ends.timestamp()}
        if self._files.client_ca is not None:
            found[self._files.client_ca] = _next_end(self._read.roots_end, _now(self._clock))
        return found

    def refresh(self) -> int:
        """Take over what has changed since before the last look, and not since; return 1 if it was.

        So nothing is taken over while somebody writes it. Raises `CertificatesInvalid` at each look
        that finds bad files.
        """
        stamps = self._looked()
        if stamps == self._stamps:
            return 0
        if stamps != self._seen:
            self._seen = stamps
            return 0
        found = _read_listener(self._files)
        self._check_times(found)
        self._stamps = stamps
        if found.credentials == self._read.credentials:
            return 0
        self._read = found
        return 1

    def _looked(self) -> Sequence[Stamp]:
        return tuple(stamp_of(path) for path in self._files.paths())

    def _check_times(self, found: _Read) -> None:
        """Refuse what is over, or not begun, while what is in use is neither."""
        now = _now(self._clock)
        if found.begins <= now <= found.ends or self.over():
            return
        message = f"has expired on {found.ends:%Y-%m-%d %H:%M:%S} UTC"
        if now < found.begins:
            message = f"is not valid before {found.begins:%Y-%m-%d %H:%M:%S} UTC"
        raise CertificatesInvalid((Fault(0, str(self._files.certificate), message),))


class AuthorityFiles:
    """Files of certificates that others use, such as a database's authority: when they are over."""

    def __init__(self, paths: Sequence[Path], clock: Clock) -> None:
        self._clock = clock
        self._stamps: dict[Path, Stamp | None] = dict.fromkeys(paths)
        self._ends: dict[Path, Sequence[datetime]] = {}

    def refresh(self) -> Sequence[Fault]:
        """Read what has changed; return the faults of files that are bad."""
        faults: list[Fault] = []
        for path, before in self._stamps.items():
            stamp = stamp_of(path)
            if stamp == before:
                continue
            found, wrong = _certificates(path)
            faults += wrong
            if not wrong:
                self._stamps[path] = stamp
                self._ends[path] = [each.not_valid_after_utc for each in found]
        return faults

    def expiries(self) -> Mapping[Path, float]:
        """Return when what each file holds is over, in seconds since the Unix epoch."""
        now = _now(self._clock)
        return {path: _next_end(ends, now) for path, ends in self._ends.items()}


def _read_listener(files: ListenerFiles) -> _Read:
    """Return what the files hold. Raises `CertificatesInvalid` with every fault."""
    chain, faults = _certificates(files.certificate)
    key, key_faults = _key(files.key)
    faults += key_faults
    if chain and key is not None and chain[0].public_key() != key.public_key():
        message = f"is not the key of the first certificate in {files.certificate}"
        faults.append(Fault(0, str(files.key), message))
    roots: list[x509.Certificate] = []
    if files.client_ca is not None:
        roots, root_faults = _certificates(files.client_ca)
        faults += root_faults
    if faults:
        raise CertificatesInvalid(faults)
    assert key is not None
    return _Read(
        ServerCredentials(_pem(chain), _key_pem(key), _pem(roots)),
        begins=max(each.not_valid_before_utc for each in chain),
        ends=min(each.not_valid_after_utc for each in chain),
        roots_end=[each.not_valid_after_utc for each in roots],
    )


def _next_end(ends: Sequence[datetime], now: datetime) -> float:
    """Return when the next of several authorities is over: those that are over already are left.

    Whoever has renewed an authority leaves the old one in for a while, and it alarms nobody.
    """
    return next((each for each in sorted(ends) if each > now), max(ends)).timestamp()


def _now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now_us() / 1_000_000, UTC)


def _certificates(path: Path) -> tuple[list[x509.Certificate], list[Fault]]:
    content, faults = _content(path)
    if faults:
        return [], faults
    try:
        return x509.load_pem_x509_certificates(content), []
    except ValueError:
        return [], [Fault(0, str(path), "holds no certificates in PEM")]


def _key(path: Path) -> tuple[PrivateKeyTypes | None, list[Fault]]:
    content, faults = _content(path)
    if faults:
        return None, faults
    try:
        return serialization.load_pem_private_key(content, None), []
    except TypeError:
        return None, [Fault(0, str(path), "holds a key that a password protects: take it off")]
    except ValueError:
        return None, [Fault(0, str(path), "holds no private key in PEM")]


def _content(path: Path) -> tuple[bytes, list[Fault]]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        return b"", [Fault(0, str(path), f"cannot be read: {error.strerror}")]
    if len(content) > FILE_BYTES_MAX:
        return b"", [Fault(0, str(path), f"is larger than {FILE_BYTES_MAX} bytes")]
    return content, []


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _key_pem(key: PrivateKeyTypes) -> bytes:
    # As it was read, but of one form: what else the file held is nobody's business.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
