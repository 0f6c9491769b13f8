"""Entries of Envoy's access logs as the catalog's rules read them.

Guarantees: nothing is worked out of an entry but what a rule asks for; what goes on still is left
out, as its end tells all of it again.
Refuses to know: what entries mean, and how they are recorded.
"""

import hashlib
from typing import Any, Final

from tallygate.domain.envoy import LogField, LogGiven, LogKind, LogMeasure, LogPlace
from tallygate.gen.envoy import access_log_pb2 as pb

# Half of a SHA-256: no two entries of an installation's life share one.
IDENTITY_DIGITS: Final = 32

_METHOD: Final = "REQUEST_METHOD_"

_ENDS: Final = frozenset(
    {
        pb.ACCESS_LOG_TYPE_UNSPECIFIED,
        pb.ACCESS_LOG_TYPE_DOWNSTREAM_END,
        pb.ACCESS_LOG_TYPE_TCP_CONNECTION_END,
        pb.ACCESS_LOG_TYPE_UDP_SESSION_END,
    }
)


class Entry:
    """A `LogRecord` over an entry's message."""

    def __init__(self, kind: LogKind, message: Any, identifier: Any) -> None:  # noqa: ANN401
        self._kind = kind
        self._message = message
        self._common = message.common_properties
        self._identifier = identifier

    @property
    def kind(self) -> LogKind:
        """What it is of."""
        return self._kind

    @property
    def has_ended(self) -> bool:
        """Whether what it tells of is over."""
        common = self._common
        return not common.intermediate_log_entry and common.access_log_type in _ENDS

    @property
    def identity(self) -> str:
        """A digest of all that it says, and of who says it."""
        whole = hashlib.sha256()
        node, log_name = self._identifier.node.id, self._identifier.log_name
        for part in (node, log_name, self._kind.value):
            whole.update(part.encode() + b"\0")
        whole.update(self._message.SerializeToString(deterministic=True))
        return whole.hexdigest()[:IDENTITY_DIGITS]

    @property
    def ended_at_us(self) -> int:
        """Its start and how long it took, as far as it says so."""
        common = self._common
        if not common.HasField("start_time"):
            return 0
        return int(common.start_time.ToMicroseconds()) + self._lasted_us()

    def text(self, given: LogGiven) -> str:
        """Return a value, empty where there is none."""
        match given.place:
            case LogPlace.TEXT:
                return given.path[0]
            case LogPlace.REQUEST_HEADER:
                return self._header("request", given.path[0])
            case LogPlace.RESPONSE_HEADER:
                return self._header("response", given.path[0])
            case LogPlace.METADATA:
                return self._metadata(given.path)
            case LogPlace.TAG:
                return str(self._common.custom_tags.get(given.path[0], ""))
            case LogPlace.FIELD:
                return self._field(LogField(given.path[0]))

    def measure(self, measure: LogMeasure) -> int:
        """Return a number, 0 where there is none.

        Bytes of HTTP are those of headers and body as Envoy counts them for its access log; those
        received and sent are of the connection below, of HTTP with all that frames it.
        """
        http = self._kind is LogKind.HTTP
        match measure:
            case LogMeasure.ONE:
                return 1
            case LogMeasure.REQUEST_BYTES:
                if not http:
                    return self._wire("received")
                request = self._message.request
                return int(request.request_headers_bytes + request.request_body_bytes)
            case LogMeasure.RESPONSE_BYTES:
                if not http:
                    return self._wire("sent")
                response = self._message.response
                return int(response.response_headers_bytes + response.response_body_bytes)
            case LogMeasure.RECEIVED_BYTES:
                return self._wire("received")
            case LogMeasure.SENT_BYTES:
                return self._wire("sent")
            case LogMeasure.DURATION_MS:
                return self._lasted_us() // 1000

    def _lasted_us(self) -> int:
        common = self._common
        if common.HasField("duration"):
            return int(common.duration.ToMicroseconds())
        return int(common.time_to_last_downstream_tx_byte.ToMicroseconds())

    def _wire(self, way: str) -> int:
        if self._kind is LogKind.TCP:
            found = getattr(self._message.connection_properties, f"{way}_bytes")
            if found:
                return int(found)
        return int(getattr(self._common, f"downstream_wire_bytes_{way}"))

    def _header(self, side: str, name: str) -> str:
        if self._kind is not LogKind.HTTP:
            return ""
        properties = getattr(self._message, side)
        return str(getattr(properties, f"{side}_headers").get(name, ""))

    def _metadata(self, path: tuple[str, ...]) -> str:
        value: Any = self._common.metadata.filter_metadata.get(path[0])
        for name in path[1:]:
            if value is None or name not in value.fields:
                return ""
            found = value.fields[name]
            kind = found.WhichOneof("kind")
            if kind == "struct_value":
                value = found.struct_value
            elif name is path[-1] and kind == "string_value":
                return str(found.string_value)
            elif name is path[-1] and kind == "number_value":
                number = found.number_value
                return str(int(number)) if number == int(number) else str(number)
            else:
                return ""
        return ""

    def _field(self, field: LogField) -> str:
        common, node = self._common, self._identifier.node
        match field:
            case LogField.CLUSTER:
                return str(common.upstream_cluster)
            case LogField.ROUTE:
                return str(common.route_name)
            case LogField.LOG_NAME:
                return str(self._identifier.log_name)
            case LogField.NODE:
                return str(node.id)
            case LogField.NODE_CLUSTER:
                return str(node.cluster)
            case LogField.SERVER_NAME:
                return str(common.tls_properties.tls_sni_hostname)
            case LogField.PEER:
                return _peer(common.tls_properties.peer_certificate_properties)
            case LogField.AUTHORITY | LogField.METHOD | LogField.PATH | LogField.STATUS:
                return self._of_http(field)

    def _of_http(self, field: LogField) -> str:
        if self._kind is not LogKind.HTTP:
            return ""
        request = self._message.request
        if field is LogField.AUTHORITY:
            return str(request.authority)
        if field is LogField.METHOD:
            method = request.request_method
            return pb.RequestMethod.Name(method).removeprefix(_METHOD) if method else ""
        if field is LogField.PATH:
            path = str(request.original_path or request.path)
            return path.partition("?")[0]
        code = self._message.response.response_code
        return str(code.value) if code.value else ""


def records_of(message: Any, identifier: Any) -> tuple[list[Entry], int]:  # noqa: ANN401  no stubs
    """Return the entries of a message, and how many were left out as they go on still."""
    found = [
        Entry(kind, each, identifier)
        for kind, entries in (
            (LogKind.HTTP, message.http_logs.log_entry),
            (LogKind.TCP, message.tcp_logs.log_entry),
        )
        for each in entries
    ]
    ended = [each for each in found if each.has_ended]
    return ended, len(found) - len(ended)


def _peer(certificate: Any) -> str:  # noqa: ANN401  no stubs
    for each in certificate.subject_alt_name:
        if each.uri:
            return str(each.uri)
    return str(certificate.subject)
