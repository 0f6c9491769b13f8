"""Where settings come from: flags, then `TALLYGATE_*` environment, then a file.

Guarantees: every fault of every source is reported at once, each with where it stands and, for a
misspelled name, what was probably meant. Refuses to know what a setting means.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import yaml
from pydantic import SecretStr, ValidationError

from tallygate.domain.errors import Fault, TallygateError
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl

ENV_PREFIX = "TALLYGATE_"
FILE_SUFFIX = "_file"

SECRET_FILE_MAX_BYTES = 64 * 1024
"""Far above any URL or key; a wrong path may lead to anything."""

SERVICE_LINK = re.compile(
    r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes puts into every pod of a namespace with a Service whose name is `tallygate…`."""


class SettingsInvalid(TallygateError):
    """The settings have faults."""

    reason = "INVALID_FIELD"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        lines = "".join(f"\n  {describe(fault)}" for fault in faults)
        super().__init__(f"the settings have {len(faults)} fault(s):{lines}")
        self.faults = faults


def describe(fault: Fault) -> str:
    """Return the fault as one line."""
    hint = f" (did you mean {fault.suggestion}?)" if fault.suggestion else ""
    return f"{fault.path}: {fault.message}{hint}"


@dataclass(slots=True)
class Collected:
    """Values by field name, where each was found, and the faults met so far."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def add(self, name: str, value: object, origin: str) -> None:
        """Take a value unless a stronger source gave one already."""
        if name not in self.values:
            self.values[name] = value
            self.origins[name] = origin

    def fault(self, path: str, message: str, suggestion: str = "") -> None:
        """Note a fault that stands at `path`."""
        self.faults.append(Fault(0, path, message, suggestion))


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Return the settings of flags over environment over file; raise SettingsInvalid.

    `flags` go by field name, None meaning not given. `config` is the file, which otherwise
    `TALLYGATE_CONFIG` names. Each secret can also come from a file: `<name>_file`.
    """
    environment = os.environ if environ is None else environ
    collected = Collected()
    for name, value in (flags or {}).items():
        if value is not None:
            _take(collected, name, value, _flag)
    named = environment.get(f"{ENV_PREFIX}CONFIG", "")
    for key, text in sorted(environment.items()):
        known = key.removeprefix(ENV_PREFIX)
        if key.startswith(ENV_PREFIX) and known != "CONFIG" and not _foreign(known):
            _take(collected, known.lower(), text, _variable)
    path = config if config is not None else Path(named) if named else None
    if path is not None:
        for name, value in _read_file(collected, path).items():
            _take(collected, name, value, lambda key: f"{path}: {key}")
    settings = _validate(collected)
    if settings is None or collected.faults:
        raise SettingsInvalid(tuple(collected.faults))
    return settings


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"


def _foreign(name: str) -> bool:
    # A near miss of a real name stays ours, so that its owner hears of it.
    return SERVICE_LINK.fullmatch(name) is not None and name.lower() not in Settings.model_fields


def secret_fields() -> tuple[str, ...]:
    """Return the names of the fields whose value is never shown in full."""

    def secret(annotation: object) -> bool:
        if isinstance(annotation, type):
            return issubclass(annotation, SecretStr)
        return any(secret(part) for part in get_args(annotation))

    return tuple(n for n, f in Settings.model_fields.items() if secret(f.annotation))


def _take(collected: Collected, name: str, value: object, spell: Callable[[str], str]) -> None:
    if name in Settings.model_fields:
        collected.add(name, value, spell(name))
        return
    secret = name.removesuffix(FILE_SUFFIX)
    if name != secret and secret in secret_fields():
        path = Path(str(value))
        text = _read_secret(collected, path, spell(name))
        if text is not None:
            # With it where the next one will be.
            collected.add(secret, SecretUrl(text, path), spell(name))
        return
    names = (*Settings.model_fields, *(f"{each}{FILE_SUFFIX}" for each in secret_fields()))
    close = difflib.get_close_matches(name, names, n=1)
    collected.fault(
        spell(name), "there is no such setting", spell(close[0]).rpartition(" ")[2] if close else ""
    )


def _read_secret(collected: Collected, path: Path, origin: str) -> str | None:
    try:
        with path.open("rb") as opened:
            return opened.read(SECRET_FILE_MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        collected.fault(origin, f"cannot read {path}: {reason}")
        return None


def _read_file(collected: Collected, path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
        match path.suffix:
            case ".toml":
                document: object = tomllib.loads(text)
            case ".yaml" | ".yml":
                document = yaml.safe_load(text)
            case _:
                collected.fault(str(path), "a settings file ends in .toml, .yaml or .yml")
                return {}
    except OSError as error:
        collected.fault(str(path), f"cannot read it: {error.strerror}")
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        # A YAML fault quotes the offending line, which may be the one with the password.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
        collected.fault(str(path), f"it cannot be parsed: {where}")
    else:
        if document is None:
            return {}
        if isinstance(document, dict):
            return {str(key): value for key, value in document.items() if value is not None}
        collected.fault(str(path), "a settings file is a table of names and values")
    return {}


def _validate(collected: Collected) -> Settings | None:
    try:
        return Settings.model_validate(collected.values)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            name = str(each["loc"][0]) if each["loc"] else ""
            origin = collected.origins.get(name, name or "settings")
            collected.fault(origin, each["msg"].removeprefix("Value error, "))
        return None
