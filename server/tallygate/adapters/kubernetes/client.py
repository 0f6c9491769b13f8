"""A client of the Kubernetes API: JSON over HTTP, with what a pod is given to ask it.

Guarantees: every call has a deadline and every answer a bound; the token and the authority are read
again when their files change; a fault names the path and the status, never the token.
Refuses to know: what is asked for.
"""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tallygate.adapters.file_stamp import Stamp, stamp_of
from tallygate.domain.json_patch import Json, Object
from tallygate.ports.kubernetes import ChangedMeanwhile, KubernetesRefused, KubernetesSilent

# A page of 250 pods is about 3 MB; pods may be far larger than usual.
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
MESSAGE_CHARS_MAX: Final = 300
CONFLICT: Final = 409
NOT_FOUND: Final = 404

Method = Literal["GET", "POST", "PUT", "PATCH"]


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is, and the files that let us in."""

    url: str
    token_file: Path
    ca_file: Path

    @property
    def secure(self) -> bool:
        """Whether a token may be sent there."""
        return self.url.startswith("https://")


def url_of_pod(environ: Mapping[str, str] | None = None) -> str:
    """Return where a pod is told that the API is. Raises `KubernetesSilent` outside of one."""
    environment = os.environ if environ is None else environ
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        raise KubernetesSilent(
            "this is no pod; say where the API is by TALLYGATE_INJECTOR_KUBERNETES_URL"
        )
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    bracketed = f"[{host}]" if ":" in host else host
    return f"https://{bracketed}:{port}"


class KubernetesApi:
    """One session, until `close`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: ClientSession | None = None
        self._trusted: Stamp | None = None

    async def close(self) -> None:
        """Close the session's connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object | None:
        """Return an object, None where there is none."""
        return await self._ask("GET", path, params=params or {})

    async def post(self, path: str, body: Object) -> None:
        """Create an object. Raises `ChangedMeanwhile` where there is one already."""
        await self._ask("POST", path, body=body)

    async def put(self, path: str, body: Object) -> None:
        """Replace an object, of the version that it names. Raises `ChangedMeanwhile`."""
        await self._ask("PUT", path, body=body)

    async def patch(self, path: str, operations: list[Json]) -> None:
        """Change an object by a JSON patch."""
        await self._ask("PATCH", path, body=operations, kind="application/json-patch+json")

    async def _ask(
        self,
        method: Method,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json = None,
        kind: str = "application/json",
    ) -> Object | None:
        headers = {"Accept": "application/json", "User-Agent": "tallygate-injector"}
        content = None
        if body is not None:
            headers["Content-Type"] = kind
            content = json.dumps(body).encode()
        try:
            if self._access.secure:
                # Kubelet renews it hourly; a read costs less than a call by far.
                token = self._access.token_file.read_text(encoding="utf-8").strip()
                headers["Authorization"] = f"Bearer {token}"
            session = await self._connected()
            async with session.request(
                method, self._access.url + path, params=params, data=content, headers=headers
            ) as response:
                answer = bytearray()
                async for part in response.content.iter_any():
                    answer += part
                    if len(answer) > ANSWER_BYTES_MAX:
                        raise KubernetesRefused(f"{path} answers with too many bytes")
                return _read(method, path, response.status, bytes(answer))
        except (ClientError, TimeoutError, OSError) as error:
            # A file that is missing says which; of a connection its kind is enough.
            why = f": {error.filename}" if isinstance(error, FileNotFoundError) else ""
            raise KubernetesSilent(f"the Kubernetes API does not answer {path}{why}") from error

    async def _connected(self) -> ClientSession:
        """Return the session, a new one where the authority's file has changed."""
        trusted = None
        if self._access.secure:
            trusted = stamp_of(self._access.ca_file)
        if self._session is not None and trusted == self._trusted:
            return self._session
        await self.close()
        context: ssl.SSLContext | bool = True
        if trusted is not None:
            context = ssl.create_default_context(cafile=self._access.ca_file)
        self._session = ClientSession(
            connector=TCPConnector(limit=4, ssl=context),
            timeout=ClientTimeout(total=TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )
        self._trusted = trusted
        return self._session


def _read(method: Method, path: str, status: int, answer: bytes) -> Object | None:
    if status == NOT_FOUND and method == "GET":
        return None
    if status == CONFLICT:
        raise ChangedMeanwhile
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if status >= 500:
        raise KubernetesSilent(f"the Kubernetes API answers {path} with {status}")
    if status >= 400 or not isinstance(document, dict):
        message = document.get("message", "") if isinstance(document, dict) else ""
        text = str(message)[:MESSAGE_CHARS_MAX]
        told = f"the Kubernetes API answers {path} with {status}: {text}"
        raise KubernetesRefused(told, status=status)
    return document
