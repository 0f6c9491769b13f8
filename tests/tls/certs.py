"""Certificates for tests, made on the spot.

Guarantees: keys of elliptic curves, as those of RSA take a second each. Refuses to know files but
where it is told to write.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both; return where they are."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.pem)
        key.write_bytes(self.key_pem)
        return cert, key


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority", *, days: int = 30) -> None:
        self._own = _signed(name, None, (), (_now() - DAY, _now() + days * DAY))

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._own.pem

    def write(self, folder: Path, name: str = "ca") -> Path:
        """Write its certificate; return where it is."""
        path = folder / f"{name}.crt"
        path.write_bytes(self.pem)
        return path

    def server(
        self, *, address: str = "127.0.0.1", from_days: float = -1, days: float = 10
    ) -> Made:
        """Return a certificate of `localhost` and an address."""
        names = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address)))
        return self._make("server", names, from_days, days)

    def client(
        self, *uris: str, name: str = "client", from_days: float = -1, days: float = 10
    ) -> Made:
        """Return a caller's certificate with these URIs."""
        names = [x509.UniformResourceIdentifier(each) for each in uris]
        return self._make(name, names or (x509.DNSName("client"),), from_days, days)

    def _make(self, name: str, names: object, from_days: float, days: float) -> Made:
        now = _now()
        span = (now + from_days * DAY, now + days * DAY)
        return _signed(name, self._own, tuple(names), span)  # type: ignore[arg-type]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _signed(
    name: str,
    by: Made | None,
    names: tuple[x509.GeneralName, ...],
    span: tuple[datetime.datetime, datetime.datetime],
) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Made(builder.sign(by.key if by else key, hashes.SHA256()), key)
