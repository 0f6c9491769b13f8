"""Applying: what is written, what is refused, what is shown."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.domain.catalog import Catalog, Limit, LimitKind, Meter, Override, Plan, Tenant
from tallygate.domain.catalog_diff import ChangeKind
from tallygate.domain.errors import (
    CatalogConflict,
    CatalogInvalid,
    InvalidField,
    NotFound,
)
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.window import Period
from tallygate.flow.apply import FIRST_BACK_US, Apply, ApplyOptions
from tallygate.ports import CatalogChange
from tallygate.testing.catalog import FakeCatalogStore
from tests.catalog.documents import GOOD, changed

NOW = 1_700_000_000_000_000
ACME = TenantId("acme")
ORG = TenantId("org")
FREE = PlanName("free")
PRO = PlanName("pro")
PLAIN = ApplyOptions()


@dataclass
class Office:
    """A store, and who applies catalogs to it, at a time that can be set."""

    now: int = NOW
    store: FakeCatalogStore = field(default_factory=FakeCatalogStore)

    @property
    def apply(self) -> Apply:
        """Return who applies."""
        return Apply(self.store, YamlCatalogDocuments(), self)

    def now_us(self) -> int:
        """Return the time."""
        return self.now

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now / 1e6

    async def version(self) -> int:
        """Return the newest version."""
        return (await self.store.newest()).version

    async def tenant(self, tenant_id: TenantId) -> Tenant:
        """Return a tenant that is there."""
        found = await self.store.tenant(tenant_id)
        assert found is not None
        return found


@pytest.fixture
async def office() -> Office:
    """An office with the good document applied."""
    found = Office()
    await found.apply.document(GOOD, PLAIN)
    return found


async def test_a_first_document_is_all_new() -> None:
    """The first document is written as version 1, everything added."""
    office = Office()
    applied = await office.apply.document(GOOD, PLAIN)
    assert (applied.version, applied.applied) == (1, True)
    assert {change.kind for change in applied.changes} == {ChangeKind.ADDED}
    assert [change.path for change in applied.changes] == [
        "default_plan",
        "meters.egress_bytes",
        "meters.requests",
        "plans.free",
        "plans.pro",
        "destinations.hooks",
        "tenants.org",
        "tenants.acme",
        "tenants.10.0.0.1",
    ]
    assert (await office.store.effective(NOW)).version == 1


async def test_the_same_document_changes_nothing(office: Office) -> None:
    """Applied again, a document writes no version."""
    applied = await office.apply.document(GOOD, PLAIN)
    assert (applied.version, applied.applied, applied.changes) == (1, False, ())
    assert await office.version() == 1


async def test_a_change_is_shown_and_written(office: Office) -> None:
    """Only what differs is shown, with what was and what will be."""
    text = changed("limit: 5_000", "limit: 6_000").replace("currency: EUR", "currency: CHF")
    applied = await office.apply.document(text, PLAIN)
    assert [(each.path, each.before, each.after) for each in applied.changes] == [
        ("plans.free.limits.egress.limit", "5000", "6000"),
        ("tenants.acme.currency", "EUR", "CHF"),
    ]
    assert applied.version == 2


async def test_a_dry_run_writes_nothing(office: Office) -> None:
    """A dry run shows the same and leaves the store alone."""
    options = ApplyOptions(dry_run=True)
    applied = await office.apply.document(changed("limit: 5_000", "limit: 6"), options)
    assert (applied.version, applied.applied, applied.change_count) == (1, False, 1)
    assert await office.version() == 1


async def test_tenants_left_out_stay(office: Office) -> None:
    """A document says nothing of the tenants it does not name."""
    before = await office.tenant(ACME)
    text = GOOD[: GOOD.index("tenants:")] + GOOD[GOOD.index("destinations:") :]
    applied = await office.apply.document(text, PLAIN)
    assert not applied.applied
    assert await office.tenant(ACME) == before


async def test_only_changed_tenants_are_written(office: Office) -> None:
    """Tenants that stay as they are keep the version that wrote them."""
    await office.apply.document(changed("currency: EUR", "currency: CHF"), PLAIN)
    found = [part async for part in office.store.tenants_changed(1, 2)]
    assert [[each.tenant_id for each in part] for part in found] == [[ACME]]


async def test_a_document_may_lean_on_stored_tenants(office: Office) -> None:
    """A parent that was applied before need not be named again; an unknown one is a fault."""
    start, end = GOOD.index("tenants:\n"), GOOD.index("destinations:\n")
    tenants = "tenants:\n  child: {plan: free, parent: acme}\n"
    await office.apply.document(GOOD[:start] + tenants + GOOD[end:], PLAIN)
    assert (await office.tenant(TenantId("child"))).parent == ACME
    text = GOOD[:start] + tenants.replace("acme", "acne") + GOOD[end:]
    with pytest.raises(CatalogInvalid) as raised:
        await office.apply.document(text, PLAIN)
    (fault,) = raised.value.faults
    assert fault.line == text[: text.index("child")].count("\n") + 1
    assert (fault.path, fault.message) == ("tenants.child.parent", "there is no tenant 'acne'")


async def test_a_circle_over_stored_tenants_is_refused(office: Office) -> None:
    """Whoever is above acme cannot come below it."""
    with pytest.raises(CatalogInvalid, match="1 fault"):
        await office.apply.tenant(Tenant(ORG, PRO, parent=ACME))


async def test_a_plan_in_use_cannot_go(office: Office) -> None:
    """A plan goes only when every tenant on it goes elsewhere; the fault counts them."""
    text = GOOD.replace("default_plan: free\n", "").replace(
        GOOD[GOOD.index("  free:\n") : GOOD.index("  pro:\n")], ""
    )
    with pytest.raises(CatalogInvalid) as raised:
        await office.apply.document(text.replace('  "10.0.0.1": {plan: free}\n', ""), PLAIN)
    (fault,) = raised.value.faults
    assert (fault.path, "1 tenant(s)" in fault.message) == ("plans.free", True)
    applied = await office.apply.document(
        text.replace('"10.0.0.1": {plan: free}', '"10.0.0.1": {plan: pro}'), PLAIN
    )
    assert applied.applied


async def test_a_version_may_wait(office: Office) -> None:
    """A version with a time to come takes effect then, and not before."""
    options = ApplyOptions(effective_at_us=NOW + 10)
    applied = await office.apply.document(changed("limit: 5_000", "limit: 6_000"), options)
    assert applied.version == 2
    assert (await office.store.effective(NOW + 9)).version == 1
    assert (await office.store.effective(NOW + 10)).version == 2


async def test_nothing_takes_effect_in_the_past(office: Office) -> None:
    """A time that has passed is refused by its field, also in a dry run."""
    for dry_run in (True, False):
        options = ApplyOptions(dry_run, NOW - 1)
        with pytest.raises(InvalidField) as raised:
            await office.apply.document(GOOD, options)
        assert raised.value.field == "effective_at"


async def test_the_first_version_may_be_older() -> None:
    """By as much as a new installation may bring along; a second one may not."""
    office = Office()
    too_old = ApplyOptions(effective_at_us=NOW - FIRST_BACK_US - 1)
    with pytest.raises(InvalidField):
        await office.apply.document(GOOD, too_old)
    oldest = ApplyOptions(effective_at_us=NOW - FIRST_BACK_US)
    assert (await office.apply.document(GOOD, oldest)).version == 1
    assert (await office.store.effective(NOW - FIRST_BACK_US)).version == 1
    assert (await office.store.effective(NOW - FIRST_BACK_US - 1)).version == 0
    with pytest.raises(InvalidField):
        await office.apply.document(changed("limit: 5_000", "limit: 6_000"), oldest)


async def test_nothing_overtakes_a_version_that_waits(office: Office) -> None:
    """A change now would bring a waiting version's changes with it, and is refused."""
    options = ApplyOptions(effective_at_us=NOW + 10)
    await office.apply.document(changed("limit: 5_000", "limit: 6_000"), options)
    with pytest.raises(CatalogConflict):
        await office.apply.tenant(Tenant(ACME, FREE))
    office.now = NOW + 10
    assert (await office.apply.tenant(Tenant(ACME, FREE))).version == 3


async def test_an_expected_version_is_asked_for(office: Office) -> None:
    """Whoever expects another version than the newest writes nothing, and is told so early."""
    text = changed("limit: 5_000", "limit: 6_000")
    for dry_run in (True, False):
        with pytest.raises(CatalogConflict):
            await office.apply.document(text, ApplyOptions(dry_run, expected_version=2))
    assert (await office.apply.document(text, ApplyOptions(expected_version=1))).version == 2


async def test_single_changes_go_the_same_way(office: Office) -> None:
    """A meter, a plan and a tenant each make a version on top of the last."""
    meter = Meter(MeterName("seats"))
    limit = Limit(LimitId("seats"), meter.name, LimitKind.WINDOW, Period.MONTH, 5)
    plan = Plan(PlanName("team"), (limit,))
    tenant = Tenant(ACME, plan.name)
    versions = [
        (await office.apply.meter(meter)).version,
        (await office.apply.plan(plan)).version,
        (await office.apply.tenant(tenant)).version,
        (await office.apply.override(ACME, Override(limit.limit_id, 7))).version,
    ]
    assert versions == [2, 3, 4, 5]
    newest = await office.store.newest()
    assert newest.meters[meter.name] == meter
    assert newest.plans[plan.name] == plan
    assert set(newest.plans) == {"free", "pro", "team"}
    assert (await office.tenant(ACME)).overrides == (Override(limit.limit_id, 7),)


BAD: list[tuple[str, Callable[[Apply], object], str]] = [
    (
        "a rate over a month",
        lambda apply: apply.plan(
            Plan(
                FREE,
                (Limit(LimitId("x"), MeterName("requests"), LimitKind.RATE, Period.MONTH, 5, 5),),
            )
        ),
        "plans.free.limits[0].period",
    ),
    ("a plan that is not there", lambda apply: apply.tenant(Tenant(ACME, PlanName("p"))), "plan"),
    ("no currency", lambda apply: apply.tenant(Tenant(ACME, PRO, currency="EURO")), "currency"),
    (
        "an override of nothing",
        lambda apply: apply.override(ACME, Override(LimitId("nope"), 1)),
        "tenants.acme.overrides.nope",
    ),
    (
        "a negative override",
        lambda apply: apply.override(ACME, Override(LimitId("egress"), -1)),
        "tenants.acme.overrides.egress.limit",
    ),
    ("a meter's bad name", lambda apply: apply.meter(Meter(MeterName("A b"))), "meters.A b"),
]


@pytest.mark.parametrize(("call", "path"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_single_changes_pass_the_same_rules(
    office: Office, call: Callable[[Apply], object], path: str
) -> None:
    """What a document may not say, nobody may say one by one."""
    with pytest.raises(CatalogInvalid) as raised:
        await call(office.apply)  # type: ignore[misc]  # each is a coroutine
    assert raised.value.faults[0].path.endswith(path)
    assert await office.version() == 1


async def test_an_override_needs_its_tenant(office: Office) -> None:
    """Nobody is created by an override."""
    with pytest.raises(NotFound) as raised:
        await office.apply.override(TenantId("nobody"), Override(LimitId("egress"), 1))
    assert raised.value.field == "override.tenant_id"


class BusyStore(FakeCatalogStore):
    """A store into which somebody else writes just before each of the first writes."""

    def __init__(self, others: int) -> None:
        super().__init__()
        self.others = others

    async def write(self, change: CatalogChange, expected_version: int) -> Catalog:
        """Let the other one write first, as often as there are others."""
        if expected_version and self.others:
            self.others -= 1
            other = Override(LimitId("egress"), self.others)
            newest = await self.newest()
            tenant = await self.tenant(ORG)
            assert tenant is not None
            overridden = Tenant(ORG, tenant.plan, overrides=(other,))
            await super().write(CatalogChange(newest, (overridden,), "", NOW), newest.version)
        return await super().write(change, expected_version)


async def test_a_single_change_survives_others() -> None:
    """A change of one thing is made again on top of what others changed, and loses none of it."""
    office = Office(store=BusyStore(3))
    await office.apply.document(GOOD, PLAIN)
    applied = await office.apply.override(ORG, Override(LimitId("egress"), 99))
    assert applied.version == 5
    assert (await office.tenant(ORG)).overrides == (Override(LimitId("egress"), 99),)


async def test_a_single_change_gives_up_in_a_crowd() -> None:
    """Where somebody else is always first, the change is refused in the end."""
    crowd = Office(store=BusyStore(50))
    await crowd.apply.document(GOOD, PLAIN)
    with pytest.raises(CatalogConflict):
        await crowd.apply.override(ORG, Override(LimitId("egress"), 99))


async def test_a_document_is_not_applied_over_another() -> None:
    """A document that meets another one's version is refused, for its author to look again."""
    busy = Office(store=BusyStore(1))
    await busy.apply.document(GOOD, PLAIN)
    with pytest.raises(CatalogConflict):
        await busy.apply.document(changed("limit: 5_000", "limit: 6_000"), PLAIN)


async def test_many_changes_are_counted(office: Office) -> None:
    """A thousand changes are listed, all are counted and written."""
    tenants = "".join(f"  t{number}: {{plan: free}}\n" for number in range(1_500))
    text = changed("tenants:\n", f"tenants:\n{tenants}")
    applied = await office.apply.document(text, PLAIN)
    assert (len(applied.changes), applied.change_count) == (1_000, 1_500)
    assert len(await office.store.tenants_page(None, 5_000, None)) == 1_503
