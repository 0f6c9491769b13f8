"""Certificates in files: what is refused, what is taken over, and when it is over."""

from pathlib import Path

import pytest

from tallygate.adapters.certificates.listener import AuthorityFiles, FileCertificates, ListenerFiles
from tallygate.domain.certificate import CertificatesInvalid
from tests.tls.certs import Authority, Made
from tests.tls.world import replace

DAY_S = 86_400


class SetClock:
    """A clock that is set, in seconds since the Unix epoch."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_us(self) -> int:
        """Return what it is set to."""
        return int(self.at_s * 1_000_000)

    def monotonic(self) -> float:
        """Return the same."""
        return self.at_s


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority of all tests here."""
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> ListenerFiles:
    """A good certificate and key of ten days, and the authority of callers."""
    cert, key = authority.server().write(tmp_path, "server")
    return ListenerFiles(cert, key, authority.write(tmp_path))


def starts(made: Made) -> float:
    """Return when a certificate begins."""
    return made.certificate.not_valid_before_utc.timestamp()


def put(files: ListenerFiles, made: Made) -> None:
    """Put another pair in place."""
    replace(files.certificate, made.pem)
    replace(files.key, made.key_pem)


def now(authority: Authority) -> SetClock:
    """Return a clock that is right."""
    return SetClock(starts(authority.server()) + DAY_S)


def faults(files: ListenerFiles, clock: SetClock) -> list[tuple[str, str]]:
    """Return what is wrong with files, by the file's name."""
    with pytest.raises(CertificatesInvalid) as told:
        FileCertificates(files, clock)
    return [(Path(each.path).name, each.message) for each in told.value.faults]


def test_all_faults_are_told_at_once(tmp_path: Path, authority: Authority) -> None:
    """Each file that cannot be used is named, with what is wrong with it."""
    files = ListenerFiles(tmp_path / "a.crt", tmp_path / "a.key", tmp_path / "ca.crt")
    files.key.write_bytes(b"no key")
    files.certificate.write_bytes(b"x" * (1024 * 1024 + 1))
    assert faults(files, now(authority)) == [
        ("a.crt", "is larger than 1048576 bytes"),
        ("a.key", "holds no private key in PEM"),
        ("ca.crt", "cannot be read: No such file or directory"),
    ]


def test_key_of_another_certificate_is_refused(files: ListenerFiles, authority: Authority) -> None:
    """A pair that is none is refused at the start, and its key is in no text."""
    files.key.write_bytes(authority.server().key_pem)
    [(name, message)] = faults(files, now(authority))
    assert (name, message) == (
        "server.key",
        f"is not the key of the first certificate in {files.certificate}",
    )


def test_no_key_is_printed(files: ListenerFiles, authority: Authority) -> None:
    """What is printed of credentials holds the certificate alone."""
    shown = repr(FileCertificates(files, now(authority)).current())
    assert "BEGIN CERTIFICATE" in shown
    assert "PRIVATE" not in shown


def test_change_is_taken_over_once_it_stands_still(
    files: ListenerFiles, authority: Authority
) -> None:
    """What changed since the last look is left for the next one: somebody may be writing it."""
    kept = FileCertificates(files, now(authority))
    before = kept.current()
    assert kept.refresh() == 0
    replace(files.certificate, (made := authority.server()).pem)
    assert kept.refresh() == 0
    replace(files.key, made.key_pem)
    assert kept.refresh() == 0
    assert kept.current() is before
    assert kept.refresh() == 1
    assert kept.current().chain == made.pem
    assert kept.refresh() == 0


def test_same_content_is_no_change(files: ListenerFiles, authority: Authority) -> None:
    """A file that is written anew as it was gives nobody other credentials."""
    kept = FileCertificates(files, now(authority))
    before = kept.current()
    replace(files.key, files.key.read_bytes())
    assert [kept.refresh(), kept.refresh(), kept.refresh()] == [0, 0, 0]
    assert kept.current() is before


@pytest.mark.parametrize(("from_days", "days"), [(-3, -1), (2, 9)])
def test_good_one_is_not_given_up_for_one_out_of_its_time(
    files: ListenerFiles, authority: Authority, from_days: float, days: float
) -> None:
    """One that is over, or not begun, is refused while what is in use is good, and taken then."""
    clock = now(authority)
    kept = FileCertificates(files, clock)
    before = kept.current()
    put(files, authority.server(from_days=from_days, days=days))
    assert kept.refresh() == 0
    for _ in range(2):
        with pytest.raises(CertificatesInvalid, match=r"expired on|not valid before"):
            kept.refresh()
    assert kept.current() is before
    clock.at_s += 20 * DAY_S
    assert kept.over()
    assert kept.refresh() == 1


def test_renewal_after_the_end_is_taken(files: ListenerFiles, authority: Authority) -> None:
    """A process that was started with a certificate that is over takes over the next one."""
    clock = now(authority)
    put(files, authority.server(from_days=-3, days=-1))
    kept = FileCertificates(files, clock)
    assert kept.over()
    put(files, authority.server())
    assert [kept.refresh(), kept.refresh()] == [0, 1]
    assert not kept.over()


def test_authority_that_is_over_alarms_nobody(tmp_path: Path) -> None:
    """Of several authorities, the next end is shown; one that is past counts only when all are."""
    old, young = Authority(days=2), Authority(days=9)
    path = tmp_path / "both.crt"
    path.write_bytes(young.pem + old.pem)
    clock = now(young)
    kept = AuthorityFiles([path], clock)
    assert kept.refresh() == []
    first = kept.expiries()[path]
    clock.at_s = first + 1
    second = kept.expiries()[path]
    assert second - first == pytest.approx(7 * DAY_S, abs=DAY_S / 2)
    clock.at_s = second + 1
    assert kept.expiries()[path] == second


def test_bad_authority_is_told_at_each_look(tmp_path: Path, authority: Authority) -> None:
    """A file that holds nothing is named at each look, until it does."""
    path = tmp_path / "ca.crt"
    kept = AuthorityFiles([path], now(authority))
    assert [each.path for each in kept.refresh()] == [str(path)]
    path.write_text("nothing")
    assert [each.message for each in kept.refresh()] == ["holds no certificates in PEM"]
    path.write_bytes(authority.pem)
    assert kept.refresh() == []
    assert [*kept.expiries()] == [path]
