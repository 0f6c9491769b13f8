"""What all middleware of this package shares: rules, costs, header fields and answers.

Guarantees that a request is settled once, by how it ended. Refuses to know any framework: those
are modules beside this one, each imported only by who uses it.
"""

from .answers import Answer, Problem, Refused
from .cost import Cost, Ending
from .rules import (
    Asked,
    Measured,
    Question,
    Rules,
    TenantMissing,
    WebRequest,
    WebRules,
)

__all__ = [
    "Answer",
    "Asked",
    "Cost",
    "Ending",
    "Measured",
    "Problem",
    "Question",
    "Refused",
    "Rules",
    "TenantMissing",
    "WebRequest",
    "WebRules",
]
