"""Certificates made by an authority of our own, and what is read from any.

Guarantees: keys are of P-256 and never leave but as PEM; an authority signs servers alone, none
below it; times begin an hour early, as clocks of nodes differ.
Refuses to know: where certificates are kept, and when they are renewed.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tallygate.domain.errors import InvalidField
from tallygate.ports.kubernetes import Pair

AUTHORITY_DAYS: Final = 3_650
SERVING_DAYS: Final = 90
EARLY: Final = dt.timedelta(hours=1)
# The first certificate of a file, and some authorities.
CERTIFICATES_MAX: Final = 100
US: Final = dt.timedelta(microseconds=1)
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class OwnAuthorities:
    """The `Authorities` port."""

    def found(self, now_us: int) -> Pair:
        """Return a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tallygate-injector-ca")])
        builder = _begun(name, name, key, now_us, AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(signs=True), True)
        return _pair(builder.sign(key, hashes.SHA256()), key)

    def issue(self, authority: Pair, names: Sequence[str], now_us: int) -> Pair:
        """Return a certificate for a server of these names."""
        signer = x509.load_pem_x509_certificate(authority.certificate)
        signing = _key(authority.key)
        key = ec.generate_private_key(ec.SECP256R1())
        # A common name holds 64 characters; verifiers read the alternative names alone.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tallygate-injector")])
        builder = _begun(name, signer.subject, key, now_us, SERVING_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(signs=False), True)
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(server, False)
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, False)
        signer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        builder = builder.add_extension(signer_key, False)
        return _pair(builder.sign(signing, hashes.SHA256()), key)

    def due(self, certificate: bytes, now_us: int) -> bool:
        """Say whether a certificate has used up two thirds of its time, or cannot be read."""
        try:
            (first, *_) = x509.load_pem_x509_certificates(certificate)
        except ValueError:
            return True
        begin, end = _us(first.not_valid_before_utc), _us(first.not_valid_after_utc)
        return now_us - begin >= (end - begin) * 2 // 3

    def issued(self, serving: Pair, authority: Pair, names: Sequence[str]) -> bool:
        """Say whether a certificate is the authority's, for these names, and its key its own."""
        try:
            (first, *_) = x509.load_pem_x509_certificates(serving.certificate)
            first.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
            found = first.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            own = _key(serving.key).public_key() == first.public_key()
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return own and set(found.value.get_values_for_type(x509.DNSName)) == set(names)

    def unexpired(self, bundle: bytes, now_us: int) -> bytes:
        """Return those certificates of a bundle that are good still, each once."""
        try:
            listed = x509.load_pem_x509_certificates(bundle)
        except ValueError:
            return b""
        good = [each for each in listed if _us(each.not_valid_after_utc) > now_us]
        kept = dict.fromkeys(each.public_bytes(serialization.Encoding.PEM) for each in good)
        return b"".join([*kept][:CERTIFICATES_MAX])

    def expires_us(self, certificate: bytes) -> int:
        """Return when the first certificate ends. Raises `InvalidField` where there is none."""
        try:
            (first, *_) = x509.load_pem_x509_certificates(certificate)
        except ValueError as error:
            raise InvalidField("holds no certificate") from error
        return _us(first.not_valid_after_utc)


def _begun(
    name: x509.Name, signer: x509.Name, key: ec.EllipticCurvePrivateKey, now_us: int, days: int
) -> x509.CertificateBuilder:
    now = EPOCH + now_us * US
    own_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(own_key, critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), private)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a key of ours")
    return key


def _us(at: dt.datetime) -> int:
    return (at - EPOCH) // US
