"""The injector's file: what it may hold, and how its faults are told."""

from typing import Any

import pytest
import yaml

from tallygate.adapters.sidecar_file import read_sidecar
from tallygate.domain.errors import InvalidField
from tallygate.domain.injection_sidecar import SidecarInvalid, sidecar_of

from .pods import FILE


def document() -> Any:
    """Return the file's content, to be spoilt."""
    return yaml.safe_load(FILE.read_bytes())


def _spoil(found: Any, way: tuple[Any, ...], value: Any) -> None:
    for step in way[:-1]:
        found = found[step]
    if value is None:
        del found[way[-1]]
    else:
        found[way[-1]] = value


@pytest.mark.parametrize(
    ("way", "value", "told"),
    [
        (("sockets",), {}, "sockets: there is no such key; did you mean socket?"),
        (("container", "image"), None, "container.image: is required"),
        (("container", "restartPolicy"), "Always", "container.restartPolicy: leave it out"),
        (("container", "volumeMounts", 2, "name"), "gone", "volumeMounts[2].name: there is no"),
        (("container", "env"), [], "TALLYGATE_GRPC_ADDRESS must hold unix:"),
        (("container", "env", 1, "value"), "0.0.0.0", "TALLYGATE_OPS_ADDRESS must be a plain"),
        (("container", "resources", "limits", "cpu"), 2, "limits.cpu: must be a text"),
        (("volumes", 1, "name"), "tallygate-socket", "volumes[1].name: must be there, and once"),
        (("volumes",), "all", "volumes: must be a list"),
        (("socket", "path"), "/tmp/a.sock", "socket.path: must lie right in the mountPath"),
        (("socket", "volume"), "other", "socket.volume: the container does not mount it"),
        (("journal", "volume"), "other", "journal.volume: the container does not mount it"),
        (("mode",), "both", "mode: must be native or container"),
        (("nativeSidecars",), False, "mode: native needs nativeSidecars"),
        (("nativeSidecars",), "no", "nativeSidecars: must be true or false"),
        (("fsGroup",), -1, "fsGroup: must be a group's number"),
        (("annotations",), {"a": True}, "annotations.a: must be a text; quote it"),
        (("skipContainers",), "istio", "skipContainers: must be a list of names"),
    ],
)
def test_faults_are_told_by_their_path(way: tuple[Any, ...], value: Any, told: str) -> None:
    """What is wrong is named by where it stands."""
    found = document()
    _spoil(found, way, value)
    with pytest.raises(SidecarInvalid) as caught:
        sidecar_of(found)
    assert told in caught.value.message


def test_a_file_that_is_no_yaml_is_told_by_its_line() -> None:
    """The line is named and nothing is quoted."""
    with pytest.raises(InvalidField, match="line 3: ") as caught:
        read_sidecar(b"container:\n  name: [secret\n")
    assert "secret" not in caught.value.message
    with pytest.raises(InvalidField, match="JSON cannot say"):
        read_sidecar(b"container: {created: 2026-01-01}")
    with pytest.raises(SidecarInvalid, match="must hold an object"):
        read_sidecar(b"[]")
