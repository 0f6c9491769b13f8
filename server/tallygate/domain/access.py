"""What each role may do with control: the one table, and what is decided by it.

Guarantees: pure; a method that is not in the table is nobody's; a caller who has some tenants is
told the same of another one's data whether there is any or not.
Refuses to know: how a caller proved who he is, and how messages carry a tenant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tallygate.domain.caller import AdminRole, Caller
from tallygate.domain.errors import PermissionDenied, RoleLacking

# Whoever sends events has an app's secret, and reads nothing by it.
ANYBODY: Final = frozenset(AdminRole) - {AdminRole.SENDER}
OPERATING: Final = frozenset((AdminRole.OPERATOR, AdminRole.ADMIN))
MONEY: Final = frozenset((AdminRole.FINANCE, AdminRole.ADMIN))
ADMINS: Final = frozenset((AdminRole.ADMIN,))
SENDING: Final = frozenset((AdminRole.SENDER, AdminRole.ADMIN))


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method.

    `tenant` is the path of the field that says whose data it is about. Where there is none, only
    what is `shared` is open to a caller who has some tenants and not all.
    """

    roles: frozenset[AdminRole]
    tenant: str = ""
    shared: bool = False


_OF_TENANT: Final = "tenant_id"

RULES: Final[Mapping[str, Rule]] = {
    # A catalog says where usage goes, and which files hold the keys for that.
    "ApplyCatalog": Rule(ADMINS),
    # What is metered is one for all; plans may be what another customer has negotiated.
    "GetMeter": Rule(ANYBODY, shared=True),
    "ListMeters": Rule(ANYBODY, shared=True),
    "ApplyMeter": Rule(OPERATING),
    "GetPlan": Rule(ANYBODY),
    "ListPlans": Rule(ANYBODY),
    "ApplyPlan": Rule(OPERATING),
    "GetTenant": Rule(ANYBODY, _OF_TENANT),
    "ListTenants": Rule(ANYBODY),
    # It names a plan and a parent, which are others'.
    "ApplyTenant": Rule(OPERATING),
    "GetOverride": Rule(ANYBODY, _OF_TENANT),
    "ListOverrides": Rule(ANYBODY, _OF_TENANT),
    "ApplyOverride": Rule(OPERATING, "override.tenant_id"),
    "QueryUsage": Rule(ANYBODY, _OF_TENANT),
    "QueryMeterUsage": Rule(ANYBODY, _OF_TENANT),
    "ResetLimit": Rule(OPERATING, _OF_TENANT),
    "GrantCredit": Rule(MONEY, _OF_TENANT),
    "ListCredits": Rule(MONEY, _OF_TENANT),
    "ListPeriods": Rule(ANYBODY, _OF_TENANT),
    "GetPeriod": Rule(ANYBODY, _OF_TENANT),
    "ClosePeriod": Rule(MONEY, _OF_TENANT),
    "ReopenPeriod": Rule(MONEY, _OF_TENANT),
    "ListInvoices": Rule(MONEY, _OF_TENANT),
    "GetInvoice": Rule(MONEY, _OF_TENANT),
    "PreviewInvoice": Rule(MONEY, _OF_TENANT),
}


# What is asked over HTTP, and is no method of the service.
HTTP_RULES: Final[Mapping[str, Rule]] = {"SendEvents": Rule(SENDING, _OF_TENANT)}


def allow(caller: Caller, method: str, tenant: str) -> None:
    """Return if the caller may call the method about this tenant, empty for none or all.

    Raises `RoleLacking`, and `PermissionDenied` for data that is not his. The latter is before
    anything is looked up, so that nobody learns from it which tenants there are.
    """
    rule = RULES.get(method) or HTTP_RULES.get(method)
    if rule is None or not caller.roles & rule.roles:
        named = sorted(rule.roles) if rule is not None else ["none"]
        raise RoleLacking(f"{method} takes one of these roles: {', '.join(named)}")
    if caller.tenants.every or rule.shared:
        return
    if not rule.tenant:
        raise PermissionDenied("this is about all tenants, and the caller has some of them")
    if not caller.tenants.covers(tenant):
        raise PermissionDenied(field=rule.tenant)
