"""Parts of a pod's manifest, as JSON: reading them, and adding to lists that have names.

Guarantees: nothing is changed in place but what the caller has made itself; a part of another shape
than Kubernetes gives it is told by its path.
Refuses to know what Tallygate puts into pods.
"""

from copy import deepcopy
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.json_patch import Json, Object

NATIVE_RESTARTS: Final = "Always"


def object_in(holder: Object, key: str, path: str = "") -> Object:
    """Return an object that may be missing or null; raise InvalidField where it is none."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidField("must be an object", field=f"{path}{key}")
    return value


def objects_in(holder: Object, key: str, path: str = "") -> list[Object]:
    """Return a list of objects that may be missing or null; raise InvalidField otherwise."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidField("must be a list", field=f"{path}{key}")
    found: list[Object] = []
    for place, each in enumerate(value):
        if not isinstance(each, dict):
            raise InvalidField("must be an object", field=f"{path}{key}[{place}]")
        found.append(each)
    return found


def text_in(holder: Object, key: str) -> str:
    """Return a text, "" where there is none."""
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def texts_in(holder: Object, key: str) -> dict[str, str]:
    """Return labels or annotations."""
    return {name: str(value) for name, value in object_in(holder, key).items()}


def names_of(listed: list[Object]) -> list[str]:
    """Return the names of a list's members."""
    return [text_in(each, "name") for each in listed]


def named(listed: list[Object], name: str) -> Object | None:
    """Return the member of that name."""
    return next((each for each in listed if text_in(each, "name") == name), None)


def as_json(listed: list[Object]) -> Json:
    """Return a list of objects as a JSON value."""
    return [*listed]


def with_env(container: Object, name: str, value: str) -> Object:
    """Return the container with a variable set, whatever it was."""
    found = deepcopy(container)
    listed = objects_in(found, "env")
    entry: Object = {"name": name, "value": value}
    known = named(listed, name)
    if known is None:
        listed.append(entry)
    else:
        listed[listed.index(known)] = entry
    found["env"] = as_json(listed)
    return found


def env_of(container: Object, name: str) -> str:
    """Return a variable's plain value, "" where it has none."""
    entry = named(objects_in(container, "env"), name)
    return text_in(entry, "value") if entry is not None else ""


def mount_of(container: Object, volume: str) -> Object | None:
    """Return where a container mounts a volume."""
    for each in objects_in(container, "volumeMounts"):
        if text_in(each, "name") == volume:
            return each
    return None


def is_native(container: Object) -> bool:
    """Say whether an init container keeps running beside the app."""
    return text_in(container, "restartPolicy") == NATIVE_RESTARTS
