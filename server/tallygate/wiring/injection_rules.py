"""What injection goes by, for the injector and for its commands: the file, and the rules.

Guarantees: a setting that an annotation sets is held to the same rules as any other setting, and is
no secret.
Refuses to know requests.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from tallygate.adapters.certificates.files import ChangingFiles
from tallygate.adapters.kubernetes.client import Access, url_of_pod
from tallygate.adapters.sidecar_file import read_sidecar
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.injection import HostNetwork, Rules
from tallygate.domain.injection_sidecar import Sidecar
from tallygate.settings import Settings
from tallygate.settings_sources import secret_fields
from tallygate.wiring.roles import RoleUnmet

# What only the injector itself reads says nothing to a sidecar.
NOT_OF_SIDECARS: Final = "injector_"


def rules_of(settings: Settings) -> Rules:
    """Return what the settings say of injection."""
    return Rules(
        frozenset({*settings.injector_excluded_namespaces, own_namespace(settings)}) - {""},
        HostNetwork(settings.injector_host_network),
        settings_faults,
    )


def own_namespace(settings: Settings) -> str:
    """Return the injector's own namespace, "" where nobody says."""
    if settings.injector_namespace:
        return settings.injector_namespace
    try:
        # Kubelet puts it beside the token.
        beside = settings.injector_kubernetes_token_file.with_name("namespace")
        return beside.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def access_of(settings: Settings) -> Access:
    """Return where the Kubernetes API is. Raises `KubernetesSilent` where nobody says."""
    url = settings.injector_kubernetes_url.rstrip("/") or url_of_pod()
    return Access(
        url, settings.injector_kubernetes_token_file, settings.injector_kubernetes_ca_file
    )


def settings_faults(asked: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with settings that are set by their names."""
    known = [name for name in Settings.model_fields if not name.startswith(NOT_OF_SIDECARS)]
    faults, right = {}, {}
    for name, text in asked.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0].replace('_', '-')}?" if close else ""
            faults[name] = f"there is no such setting{hint}"
        elif name in secret_fields():
            faults[name] = "may hold a secret, which an annotation does not keep"
        else:
            right[name] = text
    try:
        Settings.model_validate(right)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            # What is wrong together is told of one of them.
            name = str(each["loc"][0]) if each["loc"] else next(iter(right))
            faults[name] = each["msg"].removeprefix("Value error, ")
    return faults


class SidecarFile:
    """The pieces in effect: those of the file when it was right last."""

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise RoleUnmet("the injector needs TALLYGATE_INJECTOR_CONFIG")
        self._path = path
        self._files = ChangingFiles([path])
        self._current: Sidecar | None = None

    def current(self) -> Sidecar:
        """Return the pieces in effect."""
        assert self._current is not None, "it was read at start"
        return self._current

    def refresh(self) -> bool:
        """Take the file over if it changed; say so. Raises `InvalidField`, keeping the last."""
        found = self._files.read()
        if found is None:
            return False
        try:
            self._current = read_sidecar(found[0])
        except TallygateError as error:
            raise InvalidField(error.message, field=str(self._path)) from error
        self._files.taken()
        return True


def sidecar_now(path: Path | None) -> Sidecar:
    """Return what a file says. Raises `RoleUnmet` and `InvalidField`."""
    file = SidecarFile(path)
    file.refresh()
    return file.current()
