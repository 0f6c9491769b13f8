"""Our protos of Envoy's messages beside Envoy's own: each field that we name is the same there.

Owns the comparison. Guarantees that Envoy's own are those of the newest `xds-protos`, unpacked
beside everything and gone afterwards: installed, they would replace files of other packages.
Refuses to know what the fields mean. `make envoy-api` runs it, as it downloads them.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from tallygate.gen.envoy import access_log_pb2, rate_limit_pb2

PACKAGE: Final = "xds-protos"
TIMEOUT_S: Final = 240

_RLS: Final = "envoy.service.ratelimit.v3.rls_pb2:"
_DESCRIPTOR: Final = "envoy.extensions.common.ratelimit.v3.ratelimit_pb2:"
_ALS: Final = "envoy.service.accesslog.v3.als_pb2:"
_LOG: Final = "envoy.data.accesslog.v3.accesslog_pb2:"
_CORE: Final = "envoy.config.core.v3.base_pb2:"
# Of each of our messages, Envoy's; what is nested in them is compared with them.
PAIRS: Final[Mapping[Any, str]] = {
    rate_limit_pb2.RateLimitRequest: f"{_RLS}RateLimitRequest",
    rate_limit_pb2.RateLimitResponse: f"{_RLS}RateLimitResponse",
    rate_limit_pb2.RateLimitDescriptor: f"{_DESCRIPTOR}RateLimitDescriptor",
    rate_limit_pb2.HeaderValue: f"{_CORE}HeaderValue",
    access_log_pb2.StreamAccessLogsMessage: f"{_ALS}StreamAccessLogsMessage",
    access_log_pb2.StreamAccessLogsResponse: f"{_ALS}StreamAccessLogsResponse",
    access_log_pb2.Node: f"{_CORE}Node",
    access_log_pb2.Metadata: f"{_CORE}Metadata",
    access_log_pb2.AccessLogCommon: f"{_LOG}AccessLogCommon",
    access_log_pb2.TLSProperties: f"{_LOG}TLSProperties",
    access_log_pb2.HTTPAccessLogEntry: f"{_LOG}HTTPAccessLogEntry",
    access_log_pb2.HTTPRequestProperties: f"{_LOG}HTTPRequestProperties",
    access_log_pb2.HTTPResponseProperties: f"{_LOG}HTTPResponseProperties",
    access_log_pb2.TCPAccessLogEntry: f"{_LOG}TCPAccessLogEntry",
    access_log_pb2.ConnectionProperties: f"{_LOG}ConnectionProperties",
}


def differences(ours: Descriptor, theirs: Descriptor) -> Iterator[str]:
    """Iterate over what a message of ours has that Envoy's has not, or has otherwise."""
    for field in ours.fields:
        other = theirs.fields_by_number.get(field.number)
        if other is None:
            yield f"{field.full_name}: Envoy has no field {field.number}"
            continue
        if (field.name, field.type, field.is_repeated) != (
            other.name,
            other.type,
            other.is_repeated,
        ):
            yield f"{field.full_name}: {_told(field)} here, {_told(other)} there"
        if field.enum_type is not None and other.enum_type is not None:
            yield from _values(field.enum_type, other.enum_type)
    for nested in ours.nested_types:
        yield from differences(nested, theirs.nested_types_by_name[nested.name])


def _told(field: FieldDescriptor) -> str:
    return f"{field.name} of type {field.type}{', repeated' if field.is_repeated else ''}"


def _values(ours: EnumDescriptor, theirs: EnumDescriptor) -> Iterator[str]:
    """Compare values by their last words: `X_UNIT_DAY` is `DAY`, however either writes it."""
    for value in ours.values:
        other = theirs.values_by_number.get(value.number)
        if other is None:
            yield f"{value.name}: Envoy has no value {value.number}"
        elif value.number and not _plain(value.name).endswith(_plain(other.name)):
            yield f"{value.name}: {other.name} there"


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def main() -> int:
    """Compare all; return how many differences there are."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", folder, PACKAGE], check=True, timeout=TIMEOUT_S)
        # Before what is installed: Envoy's own wheel has an empty package of the same name.
        sys.path.insert(0, folder)
        assert (Path(folder) / "envoy").is_dir()
        found: list[str] = []
        for message, named in PAIRS.items():
            module, _, name = named.partition(":")
            theirs = getattr(import_module(module), name)
            found += differences(message.DESCRIPTOR, theirs.DESCRIPTOR)
    lines = [*found, f"{len(PAIRS)} messages, {len(found)} differences"]
    sys.stdout.write("\n".join(lines) + "\n")
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
