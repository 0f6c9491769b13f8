"""Control lets in whoever has proved who he is, to what his roles and tenants cover."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.door import ACTOR_FIELD, TokenDoor, tenant_at
from tallygate.domain.access import RULES, allow
from tallygate.domain.caller import AdminRole, Caller, Tenants
from tallygate.domain.errors import BackendUnavailable, InvalidField, PermissionDenied
from tallygate.gen.v1 import admin_pb2, credit_pb2, invoice_pb2, period_pb2
from tallygate.testing.tokens import FakeTokens
from tests.api.control import Control, controlled
from tests.catalog.documents import GOOD
from tests.sidecar import failure

METHODS = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name
OWN, OTHER, NOBODYS = "acme", "globex", "nobody-has-this"


def caller(name: str, *roles: str, tenants: tuple[str, ...] = ("*",)) -> Caller:
    """Return a caller."""
    covered = Tenants.of(tenants, "tenants")
    return Caller(name, frozenset(map(AdminRole, roles)), covered)


CALLERS = {
    **{role.value: caller(f"a-{role}", role.value) for role in AdminRole},
    "acme-finance": caller("acme-finance", "finance", "operator", tenants=(OWN, "team-*")),
    "nothing": caller("nothing"),
}


@dataclass
class Heard:
    """Counts refusals by reason."""

    reasons: Counter[str] = field(default_factory=Counter)

    def refused(self, reason: str) -> None:
        """Count one."""
        self.reasons[reason] += 1


@dataclass
class Guarded:
    """A control that asks for tokens."""

    control: Control
    tokens: FakeTokens
    heard: Heard

    async def call(self, token: str | None, request: Message, **more: str) -> Message:
        """Call the method that takes this request."""
        name = type(request).__name__.removesuffix("Request")
        metadata = [*more.items()]
        if token is not None:
            metadata.append(("authorization", f"Bearer {token}"))
        answer: Message = await getattr(self.control.stub, name)(request, metadata=metadata)
        return answer


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    """A control that asks for tokens."""
    tokens, heard = FakeTokens(CALLERS, frozenset(("over",))), Heard()
    async with controlled(TokenDoor(tokens, heard)) as control:
        yield Guarded(control, tokens, heard)


def test_every_method_is_in_the_table() -> None:
    """No method is without a rule, no rule without a method, and each names a field there is."""
    assert set(RULES) == set(METHODS)
    for name, rule in RULES.items():
        assert rule.roles
        assert AdminRole.ADMIN in rule.roles
        request = message_factory.GetMessageClass(METHODS[name].input_type)()
        assert tenant_at(request, rule.tenant) == ""
        # Whatever has a tenant's id is checked by it.
        names = METHODS[name].input_type.fields_by_name
        assert (rule.tenant == "tenant_id") == ("tenant_id" in names), name


def test_who_asks_is_said_in_one_field() -> None:
    """No request says in another field than `actor` who asks."""
    for name, method in METHODS.items():
        fields = [each.name for each in method.input_type.fields]
        assert not {"by", "user", "author", "caller", "requested_by"} & set(fields), name


@pytest.mark.parametrize("role", list(AdminRole))
def test_roles_have_what_the_table_says(role: AdminRole) -> None:
    """A reader changes nothing; money is finance's; the catalog as a whole is an admin's."""
    mine = {name for name, rule in RULES.items() if role in rule.roles}
    changes = {name for name in mine if not name.startswith(("Get", "List", "Query", "Preview"))}
    match role:
        case AdminRole.READER:
            assert not changes
            assert not mine & {"ListInvoices", "GetInvoice", "PreviewInvoice", "ListCredits"}
        case AdminRole.OPERATOR:
            expected = {"ApplyMeter", "ApplyPlan", "ApplyTenant", "ApplyOverride", "ResetLimit"}
            assert changes == expected
        case AdminRole.FINANCE:
            assert changes == {"GrantCredit", "ClosePeriod", "ReopenPeriod"}
        case AdminRole.ADMIN:
            assert mine == set(RULES)
        case AdminRole.SENDER:
            assert not mine


def test_a_method_without_a_rule_is_nobodys() -> None:
    """Also an admin is refused what nobody has thought of."""
    with pytest.raises(PermissionDenied):
        allow(CALLERS["admin"], "DropEverything", OWN)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "TOKEN_MISSING"),
        ([("authorization", "Basic YTpi")], "TOKEN_MISSING"),
        ([("authorization", "Bearer ")], "TOKEN_MISSING"),
        ([("authorization", "Bearer unknown")], "UNAUTHENTICATED"),
        ([("authorization", "Bearer over")], "TOKEN_EXPIRED"),
        ([("authorization", "Bearer admin"), ("authorization", "Bearer x")], "UNAUTHENTICATED"),
        ([("x-tallygate-actor", "admin")], "TOKEN_MISSING"),
    ],
)
async def test_nobody_comes_in_without_a_token(
    guarded: Guarded, metadata: list[tuple[str, str]], reason: str
) -> None:
    """The refusal has its reason, is counted by it, and is in no log that it could fill."""
    request = admin_pb2.ListMetersRequest()
    failed = await failure(guarded.control.stub.ListMeters(request, metadata=metadata))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert guarded.heard.reasons == {reason: 1}
    assert not guarded.control.trail.rows


async def test_a_role_that_lacks_is_told_and_recorded(guarded: Guarded) -> None:
    """The refusal names the roles that may, and is in the log under the proved name."""
    request = credit_pb2.GrantCreditRequest(tenant_id=OWN, limit_id="credits", grant_id="g")
    failed = await failure(guarded.call("reader", request))
    assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_LACKING")
    assert "admin, finance" in failed.message
    entries = [row.entry for row in guarded.control.trail.rows]
    assert [each.outcome for each in entries] == ["asked", "refused: ROLE_LACKING"]
    assert {(each.actor, each.role) for each in entries} == {("a-reader", "control:reader")}
    assert guarded.heard.reasons == {"ROLE_LACKING": 1}


async def test_who_has_no_role_may_nothing(guarded: Guarded) -> None:
    """A token without a role of ours proves a name, and opens nothing."""
    failed = await failure(guarded.call("nothing", admin_pb2.ListMetersRequest()))
    assert failed.reason == "ROLE_LACKING"
    assert guarded.control.trail.rows[-1].entry.role == "control"


async def test_a_name_that_is_only_said_counts_for_nothing(guarded: Guarded) -> None:
    """Neither the header nor the request's own field can say who asks."""
    request = credit_pb2.ResetLimitRequest(
        tenant_id=OWN,
        limit_id="egress",
        operation_id="o",
        reason="r",
        actor="somebody-else",
    )
    await guarded.call("operator", request, **{"x-tallygate-actor": "somebody-else"})
    assert {row.entry.actor for row in guarded.control.trail.rows} == {"a-operator"}
    [reset] = guarded.control.audit.resets.values()
    assert reset.actor == "a-operator"


def _requests() -> dict[str, Any]:
    return {
        "GetTenant": admin_pb2.GetTenantRequest,
        "GetOverride": admin_pb2.GetOverrideRequest,
        "ListOverrides": admin_pb2.ListOverridesRequest,
        "QueryUsage": admin_pb2.QueryUsageRequest,
        "ListCredits": credit_pb2.ListCreditsRequest,
        "GrantCredit": credit_pb2.GrantCreditRequest,
        "ResetLimit": credit_pb2.ResetLimitRequest,
        "ListPeriods": period_pb2.ListPeriodsRequest,
        "GetPeriod": period_pb2.GetPeriodRequest,
        "ClosePeriod": period_pb2.ClosePeriodRequest,
        "ListInvoices": invoice_pb2.ListInvoicesRequest,
        "GetInvoice": invoice_pb2.GetInvoiceRequest,
        "PreviewInvoice": invoice_pb2.PreviewInvoiceRequest,
    }


@pytest.mark.parametrize("method", sorted(_requests()))
async def test_another_tenants_data_is_as_if_it_were_not(guarded: Guarded, method: str) -> None:
    """Of another tenant, of none, and of one that does not exist: the replies are the same."""
    make = _requests()[method]
    told = {
        (failed.code, failed.reason, failed.message, tuple(failed.fields))
        for failed in [
            await failure(guarded.call("acme-finance", make(tenant_id=name)))
            for name in (OTHER, NOBODYS, "", "acme2", "team")
        ]
    }
    assert len(told) == 1
    [(code, reason, message, fields)] = told
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert not {OTHER, NOBODYS} & set(message.split())
    assert fields == ("tenant_id",)


async def test_ones_own_tenants_are_open(guarded: Guarded) -> None:
    """Names and prefixes open what they cover, and what is shared is open to all."""
    await guarded.call("acme-finance", admin_pb2.GetTenantRequest(tenant_id=OWN))
    await guarded.call("acme-finance", admin_pb2.QueryUsageRequest(tenant_id="team-x"))
    await guarded.call("acme-finance", admin_pb2.ListMetersRequest())
    assert not guarded.heard.reasons


@pytest.mark.parametrize("method", ["ListTenants", "ListPlans", "ApplyTenant", "ApplyPlan"])
async def test_what_is_about_all_is_not_for_some(guarded: Guarded, method: str) -> None:
    """Who has some tenants sees no list of all, and changes nothing that others share."""
    request = getattr(admin_pb2, f"{method}Request")()
    failed = await failure(guarded.call("acme-finance", request))
    assert failed.reason == "PERMISSION_DENIED"


async def test_a_catalog_is_an_admins(guarded: Guarded) -> None:
    """It says where usage goes and which files hold keys: no operator applies one."""
    request = admin_pb2.ApplyCatalogRequest(document=GOOD, dry_run=True)
    assert (await failure(guarded.call("operator", request))).reason == "ROLE_LACKING"
    await guarded.call("admin", request)


async def test_without_keys_control_is_away_and_not_open(guarded: Guarded) -> None:
    """Where nobody can tell which keys are trusted, nobody comes in, and may come again."""
    guarded.tokens.failure = BackendUnavailable("the keys cannot be read")
    failed = await failure(guarded.call("admin", admin_pb2.ListMetersRequest()))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")
    assert failed.retry_us


def test_tenants_are_names_prefixes_or_all() -> None:
    """A prefix covers what begins so, `*` all, and a pattern that can be no tenant is refused."""
    some = Tenants.of(["acme", "team-*"], "t")
    covered = [
        each for each in ("acme", "team-1", "team-", "acme-1", "tea", "") if some.covers(each)
    ]
    assert covered == ["acme", "team-1", "team-"]
    assert Tenants.of(["*"], "t").covers("")
    for bad in (["a b"], [""], ["x"] * 101):
        with pytest.raises(InvalidField):
            Tenants.of(bad, "t")


def test_a_metric_has_a_series_for_each_reason() -> None:
    """Refusals are counted by reason, and by nothing that a caller chooses."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    metrics = Metrics(CollectorRegistry(), version="1")
    metrics.access.refused("TOKEN_MISSING")
    value = metrics.registry.get_sample_value(
        "tallygate_access_refused_total", {"reason": "TOKEN_MISSING"}
    )
    assert value == 1.0
    assert ACTOR_FIELD == "actor"
