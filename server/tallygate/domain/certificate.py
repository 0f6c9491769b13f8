"""What a listener proves itself with, and whom it believes: certificates as data.

Guarantees: what is printed of credentials holds no key.
Refuses to know: files, and how certificates are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallygate.domain.errors import Fault, TallygateError


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """A certificate with what leads to its root, its key, and whose clients are let in.

    Without `client_ca` nobody is asked for a certificate.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes = b""


CurrentCredentials = Callable[[], ServerCredentials]
"""Gives the credentials of now: the same object until they change. Any thread may ask."""


class CertificatesInvalid(TallygateError):
    """The certificates have faults."""

    reason = "INVALID_FIELD"

    def __init__(self, faults: Sequence[Fault]) -> None:
        lines = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        super().__init__(f"the certificates have {len(faults)} fault(s): {lines}")
        self.faults = tuple(faults)
