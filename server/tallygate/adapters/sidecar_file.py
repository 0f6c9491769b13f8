"""The injector's file: YAML that says what the sidecar is made of.

Guarantees: a fault is told by its line or its path; nothing of the file is quoted.
Refuses to know where the file lies, and what its keys mean.
"""

import json

import yaml

from tallygate.domain.errors import InvalidField
from tallygate.domain.injection_sidecar import Sidecar, sidecar_of


def read_sidecar(contents: bytes) -> Sidecar:
    """Return what a file says. Raises `InvalidField` and `SidecarInvalid`."""
    try:
        document = yaml.safe_load(contents)
        # As JSON has it: what YAML takes for a date, or for a key that is no text, is none.
        plain = json.loads(json.dumps(document))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", "") or "it is no YAML"
        raise InvalidField(f"{where}{problem}") from None
    except (TypeError, ValueError, RecursionError):
        raise InvalidField("holds what JSON cannot say, as a date that is not quoted") from None
    return sidecar_of(plain)
