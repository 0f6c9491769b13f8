"""What `tallygate doctor` finds by looking deeper: rights, durability, disk, what is passed on.

Guarantees: each finding that is not ok says what to look at, and shows no secret.
Refuses to know: how anything is asked.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.commands.doctor import SKEW_MAX_S, Finding
from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings
from tallygate.wiring.checkup import (
    PostgresPosture,
    disk_facts,
    postgres_facts,
    stream_facts,
)

# Of a stream: beyond it the ledger has been away for long, or ingesters do not keep up.
DEPTH_SHARE: Final = 0.5
GB: Final = 10**9
HINTS: Final = {
    "is_primary": "this is a standby: give all servers, with target_session_attrs=read-write",
    "writable": "default_transaction_read_only is on: nothing can be stored",
    "durable": "fsync or full_page_writes is off: a loss of power damages the ledger",
    "commits": "synchronous_commit is off: what was acknowledged may be lost",
    "confirmed": "no standby or archive confirms commits: losing this disk loses them",
}
# Good to have, but a single server that a team has chosen is not a fault.
ADVISED: Final = frozenset({"confirmed"})


async def deeper(settings: Settings, before: Sequence[Finding]) -> list[Finding]:
    """Return what is found beside whether servers answer; nothing of one that did not, `before`."""
    findings: list[Finding] = []
    in_effect: int | None = None
    well = {each.check for each in before if each.state == "ok"}
    if settings.postgres_dsn is not None and "postgres" in well:
        try:
            facts = await postgres_facts(settings.postgres_dsn.get_secret_value())
        except TallygateError as error:
            findings.append(Finding("postgres rights", "wrong", error.message))
        else:
            in_effect = facts.catalog
            findings += of_postgres(facts)
    if settings.redis_url is not None and "redis" in well:
        findings += await _passed_on(settings, in_effect)
    findings.append(_disk(settings))
    return findings


def of_postgres(facts: PostgresPosture) -> list[Finding]:
    """Return what a server's posture comes to."""
    near = facts.skew_s <= SKEW_MAX_S
    found = [
        Finding(
            "postgres clock", "ok" if near else "wrong", f"{facts.skew_s * 1000:.0f} ms from ours"
        ),
        _login(facts),
    ]
    for name, good in facts.checks.items():
        state = "ok" if good else "advised" if name in ADVISED else "wrong"
        found.append(Finding(f"postgres {name}", state, "" if good else HINTS[name]))
    return found


def _login(facts: PostgresPosture) -> Finding:
    """Judge who we are: the owner migrates, and nobody serves as the owner."""
    if facts.superuser:
        detail = f"{facts.login} is a superuser: serve by logins of `tallygate migrate --roles`"
        return Finding("postgres rights", "advised", detail)
    if facts.may_edit:
        detail = f"{facts.login} may change events: fit for `tallygate migrate`, not for serving"
        return Finding("postgres rights", "advised", detail)
    if not facts.roles:
        detail = f"{facts.login} has none of our roles: `tallygate migrate --roles`, then grant one"
        return Finding("postgres rights", "wrong", detail)
    return Finding("postgres rights", "ok", f"{facts.login} may {', '.join(facts.roles)}")


async def _passed_on(settings: Settings, in_effect: int | None) -> list[Finding]:
    assert settings.redis_url is not None
    try:
        facts = await stream_facts(settings.redis_url.get_secret_value(), settings.shards)
    except TallygateError:
        # That it does not answer is found elsewhere.
        return []
    found: list[Finding] = []
    if in_effect is not None:
        told = f"sidecars are given version {facts.version}"
        same = facts.version == in_effect
        detail = told if same else f"{told}, and {in_effect} is in effect: is `control` running?"
        found.append(Finding("catalog published", "ok" if same else "wrong", detail))
    share = facts.deepest / settings.stream_entries_max
    deep = f"{facts.deepest:,} entries in the fullest, {share:.0%} of its bound"
    fine = share < DEPTH_SHARE
    found.append(
        Finding(
            "usage streams",
            "ok" if fine else "wrong",
            deep if fine else f"{deep}: is Postgres up, are there ingesters?",
        )
    )
    return found


def _disk(settings: Settings) -> Finding:
    check = f"folder {settings.data_dir}"
    facts = disk_facts(settings.data_dir)
    if facts is None:
        return Finding(check, "skipped", "not on this machine")
    if not facts.writable:
        return Finding(check, "wrong", "cannot be written: there would be no journal")
    room = facts.journal_bytes + facts.free_bytes
    detail = f"{facts.free_bytes / GB:.1f} GB free, journal {facts.journal_bytes / GB:.2f} GB"
    if settings.journal == "on" and room < settings.journal_max_bytes:
        bound = f"{settings.journal_max_bytes / GB:.1f} GB"
        return Finding(
            check, "advised", f"{detail}: less than TALLYGATE_JOURNAL_MAX_BYTES, {bound}"
        )
    return Finding(check, "ok", detail)
