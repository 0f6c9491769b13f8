"""A small Kubernetes API over HTTP: what the injector's adapters ask, with pages and versions.

It behaves as an API server where the adapters depend on it: selectors, `limit` and `continue`,
conflicts by resource version, and JSON patches that test first. `tests/kubernetes` holds the
adapters against a real one.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.injector.pods import Manifest, patched


@dataclass
class FakeApi:
    """Objects by path, and what was asked."""

    objects: dict[str, Manifest] = field(default_factory=dict)
    page: int = 2
    token: str = ""
    fail_with: int = 0
    asked: list[str] = field(default_factory=list)
    version: int = 0
    url: str = ""
    _runner: web.AppRunner | None = None

    def put(self, path: str, **document: Any) -> None:
        """Have an object there."""
        self.version += 1
        metadata = {**document.pop("metadata", {}), "resourceVersion": str(self.version)}
        metadata.setdefault("name", path.rpartition("/")[2])
        if "/namespaces/" in path and not path.startswith("/api/v1/namespaces/_"):
            metadata.setdefault("namespace", path.split("/")[4])
        self.objects[path] = {**document, "metadata": metadata}

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Listen no more."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if self.fail_with:
            return _status(self.fail_with, "told to fail")
        found = self.objects.get(request.path)
        match request.method:
            case "GET" if found is not None:
                return web.json_response(found)
            case "GET" if request.path.endswith(("/pods", "/namespaces")):
                return self._listed(request)
            case "POST":
                document = await request.json()
                path = f"{request.path}/{document['metadata']['name']}"
                if path in self.objects:
                    return _status(409, "already exists")
                self.put(path, **document)
                return web.json_response(self.objects[path], status=201)
            case "PUT" if found is not None:
                document = await request.json()
                version = document["metadata"]["resourceVersion"]
                if version != found["metadata"]["resourceVersion"]:
                    return _status(409, "changed")
                self.put(request.path, **document)
                return web.json_response(self.objects[request.path])
            case "PATCH" if found is not None:
                test, *operations = json.loads(await request.read())
                assert test["op"] == "test"
                if test["value"] != found["metadata"]["resourceVersion"]:
                    return _status(422, "the test failed")
                self.put(request.path, **_added(found, operations))
                return web.json_response(self.objects[request.path])
            case _:
                return _status(404, "not found")

    def _listed(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        below = request.path.removesuffix(f"/{kind}")
        every = [
            each
            for path, each in sorted(self.objects.items())
            if path.startswith(below) and path.split("/")[-2] == kind
            if _selected(each, request.query)
        ]
        begin = int(request.query.get("continue") or 0)
        end = begin + self.page
        rest = str(end) if end < len(every) else ""
        page = {"items": every[begin:end], "metadata": {"continue": rest}}
        # Real pages come in many pieces.
        return web.json_response({**page, "padding": "x" * 300_000})


def _added(document: Manifest, operations: list[dict[str, Any]]) -> Manifest:
    for each in operations:
        assert each["op"] == "add"
    found: Manifest = patched(document, operations)
    return found


def _selected(each: Manifest, query: Any) -> bool:
    label = each["metadata"].get("labels", {}).get("tallygate.dev/inject")
    phase = each.get("status", {}).get("phase")
    if query.get("fieldSelector") and phase in ("Succeeded", "Failed"):
        return False
    match query.get("labelSelector"):
        case "tallygate.dev/inject":
            return label is not None
        case "tallygate.dev/inject=true":
            return bool(label == "true")
        case "tallygate.dev/inject notin (true,false)":
            return label not in ("true", "false")
        case other:
            raise AssertionError(other)


def _status(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": message}, status=status)
