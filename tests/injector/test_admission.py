"""The webhook over HTTPS, as an API server asks it."""

import base64
import io
import json
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession
from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.injector import InjectorMetrics
from tallygate.api.admission import AdmissionListener, AdmissionOptions
from tallygate.api.serving_tls import ServingTls
from tallygate.domain.errors import BackendUnavailable, InvalidField
from tallygate.domain.injection import Asked, Rules, Verdict, inject
from tallygate.wiring.injecting import RunningInjector, injecting
from tallygate.wiring.roles import RoleUnmet
from tests.servers import eventually

from .conftest import AUTHORITIES, HOOK, NAME, NOW_US, Ground, metrics, ops, url_of
from .pods import SIDECAR, Manifest, patched, pod, sidecar_in


def review(manifest: Manifest, **request: Any) -> dict[str, Any]:
    """Return a question about a new pod."""
    asked = {
        "uid": "7f0c",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "shop",
        "object": manifest,
        **request,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}


async def answer(session: ClientSession, url: str, question: Any) -> dict[str, Any]:
    """Return the response to a question; it must be an AdmissionReview with the question's uid."""
    async with session.post(url, json=question, server_hostname=NAME) as reply:
        assert reply.status == 200, await reply.text()
        document = await reply.json()
    assert (document["apiVersion"], document["kind"]) == (question["apiVersion"], question["kind"])
    response: dict[str, Any] = document["response"]
    assert response.pop("uid") == question["request"]["uid"]
    return response


def applied(manifest: Manifest, response: dict[str, Any]) -> Manifest:
    """Return the pod as the API server has it after the answer."""
    assert response["patchType"] == "JSONPatch"
    found: Manifest = patched(manifest, json.loads(base64.b64decode(response["patch"])))
    return found


async def test_a_pod_comes_back_with_its_sidecar(ground: Ground, running: RunningInjector) -> None:
    """The patch puts the sidecar in; asked again about the result, there is none."""
    async with ground.asking() as session:
        first = await answer(session, url_of(running), review(pod()))
        found = applied(pod(), first)
        assert sidecar_in(found)["restartPolicy"] == "Always"
        assert first["allowed"]
        assert first["auditAnnotations"] == {"outcome": "injected"}
        again = await answer(session, url_of(running), review(found))
        assert again == {"allowed": True, "auditAnnotations": {"outcome": "present"}}


async def test_each_webhook_serves_its_own_opt_in(ground: Ground, running: RunningInjector) -> None:
    """A pod without the label gets a sidecar by the namespace's webhook alone."""
    silent = pod(labels={})
    async with ground.asking() as session:
        by_pod = await answer(session, url_of(running), review(silent))
        assert "patch" not in by_pod
        path = url_of(running, "/inject/namespace")
        by_namespace = await answer(session, path, review(silent))
        assert "patch" in by_namespace
        own = await answer(session, path, review(silent, namespace="tallygate"))
        assert "patch" not in own
        assert "cannot have one" in own["warnings"][0]


async def test_a_refusal_names_the_annotation(ground: Ground, running: RunningInjector) -> None:
    """Whoever creates the pod reads what is wrong, with a status that says whose fault it is."""
    spoilt = pod(annotations={"ops-port": "none", "colour": "blue"})
    async with ground.asking() as session:
        refused = await answer(session, url_of(running), review(spoilt))
    assert not refused["allowed"]
    assert refused["status"] == {
        "code": 422,
        "reason": "Invalid",
        "message": "tallygate.dev/ops-port: must be a port from 1024 to 65535",
    }
    assert refused["warnings"] == ["tallygate.dev/colour: there is no such annotation"]
    assert "patch" not in refused


OTHER_REQUESTS: list[dict[str, Any]] = [
    {"operation": "UPDATE"},
    {"subResource": "ephemeralcontainers"},
    {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
    {"operation": "DELETE", "object": None},
]


async def test_what_is_no_new_pod_is_let_pass(ground: Ground, running: RunningInjector) -> None:
    """A webhook that is asked too much changes nothing."""
    async with ground.asking() as session:
        for request in OTHER_REQUESTS:
            found = await answer(session, url_of(running), review(pod(), **request))
            assert found == {"allowed": True}, request


NO_QUESTIONS: list[tuple[bytes, int, str]] = [
    (b"{", 400, "the body is no JSON"),
    (b"\xff", 400, "the body is no JSON"),
    (b"[" * 100_000, 400, "the body is no JSON"),
    (b"[]", 400, "AdmissionReview: must be an object"),
    (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', 400, "apiVersion"),
    (json.dumps(review(pod(), uid="")).encode(), 400, "request.uid: is missing"),
    (json.dumps(review(pod(), object=[])).encode(), 400, "object: must be an object"),
    (json.dumps(review(pod(containers=[1]))).encode(), 400, "containers[0]: must be an object"),
    # Where only the pod is odd, it is the pod that is refused.
    (json.dumps(review(pod(volumes="x"))).encode(), 200, "volumes: must be a list"),
]


async def test_what_is_no_question_is_refused(ground: Ground, running: RunningInjector) -> None:
    """It is answered 400 with what is missing."""
    async with ground.asking() as session:
        for body, status, told in NO_QUESTIONS:
            async with session.post(url_of(running), data=body, server_hostname=NAME) as reply:
                assert (reply.status, told in await reply.text()) == (status, True), told


async def test_bounds_are_kept(ground: Ground, running: RunningInjector) -> None:
    """A body without end is cut off, and other paths and methods are none of ours."""
    async with ground.asking() as session:
        large = io.BytesIO(b" " * (9 * 1024 * 1024))
        for method, path, status, body in (
            ("POST", "/inject/pod", 413, large),
            ("POST", "/inject", 404, None),
            ("GET", "/inject/pod", 405, None),
        ):
            target = url_of(running, path)
            async with session.request(method, target, data=body, server_hostname=NAME) as reply:
                assert reply.status == status


@pytest.mark.parametrize(
    ("error", "status"), [(BackendUnavailable(), 503), (InvalidField("odd", field="spec"), 400)]
)
async def test_what_cannot_be_judged_is_no_answer(
    ground: Ground, error: Exception, status: int
) -> None:
    """Then the webhook's `failurePolicy` decides; with no room for a question it does too."""

    def judge(asked: Asked) -> Verdict:
        raise error

    class Heard:
        outcomes: list[str] = []  # noqa: RUF012 - one test's

        def answered(self, outcome: str, seconds: float) -> None:
            self.outcomes.append(outcome)

    tls, heard = ServingTls(), Heard()
    heard.outcomes.clear()
    pair = ground.certify()
    tls.take(pair.certificate, pair.key)
    listener = AdmissionListener(AdmissionOptions("127.0.0.1:0", tls, judge, heard, 1))
    await listener.start()
    found = RunningInjector(listener.port)
    async with ground.asking() as session:
        async with session.post(url_of(found), json=review(pod()), server_hostname=NAME) as reply:
            assert reply.status == status
        await listener._room.acquire()
        async with session.post(url_of(found), json=review(pod()), server_hostname=NAME) as reply:
            assert reply.status == 503
    await listener.stop()
    assert heard.outcomes == ["failed" if status == 503 else "malformed", "overloaded"]


async def test_connections_are_bounded(ground: Ground) -> None:
    """One more is cut at once; when another has gone there is room again."""
    tls = ServingTls()
    pair = ground.certify()
    tls.take(pair.certificate, pair.key)

    def judge(asked: Asked) -> Verdict:
        return inject(asked, SIDECAR, Rules())

    metrics_ = InjectorMetrics(CollectorRegistry())
    options = AdmissionOptions("127.0.0.1:0", tls, judge, metrics_, connections_max=1)
    listener = AdmissionListener(options)
    await listener.start()
    url = url_of(RunningInjector(listener.port))
    async with ground.asking() as first:
        await answer(first, url, review(pod()))
        async with ground.asking() as second:
            with pytest.raises(ClientError):
                await answer(second, url, review(pod()))

    async def room() -> bool:
        async with ground.asking() as third:
            try:
                return bool(await answer(third, url, review(pod())))
            except ClientError:
                return False

    await eventually(room)
    await listener.stop()


async def test_a_renewed_certificate_drops_no_connection(ground: Ground) -> None:
    """New connections meet the new one; a connection that is open goes on; a bad one is refused."""
    async with injecting(ground.settings(injector_report_ms=0)) as running, ground.asking() as old:
        await answer(old, url_of(running), review(pod()))
        ground.authority = AUTHORITIES.found(NOW_US)
        (ground.folder / "tls.crt").write_bytes(b"half of it")

        async def told(text: str) -> bool:
            return text in await metrics(running)

        errors = 'tallygate_injector_reload_errors_total{what="certificate"}'
        await eventually(lambda: told(f"{errors} 1.0"), timeout_s=20)
        await answer(old, url_of(running), review(pod()))
        ground.certify()

        async def renewed() -> bool:
            try:
                async with ground.asking() as fresh:
                    await answer(fresh, url_of(running), review(pod()))
            except OSError:
                return False
            return True

        await eventually(renewed, timeout_s=20)
        await answer(old, url_of(running), review(pod()))


async def test_an_injector_makes_its_own_certificate(ground: Ground) -> None:
    """It founds an authority in a Secret, has it trusted, and serves; pods without are shown."""
    ground.api.put(HOOK, webhooks=[{"name": "a", "clientConfig": {}}])
    ground.api.put("/api/v1/namespaces/shop/pods/late", **pod())
    own = {
        "injector_cert_file": None,
        "injector_key_file": None,
        "injector_cert_secret": "cert",
        "injector_webhook": "tallygate",
        "injector_service": NAME,
    }
    async with injecting(ground.settings(**own)) as running:

        async def ready() -> bool:
            return "200 OK" in await ops(running, "/readyz")

        await eventually(ready)
        bundle = ground.api.objects[HOOK]["webhooks"][0]["clientConfig"]["caBundle"]
        async with ground.asking(base64.b64decode(bundle)) as session:
            assert "patch" in await answer(session, url_of(running), review(pod()))
        text = await metrics(running)
        assert 'tallygate_injector_admissions_total{outcome="injected"} 1.0' in text

        async def looked() -> bool:
            return "tallygate_injector_missed_pods 1.0" in await metrics(running)

        await eventually(looked)


async def test_the_file_is_read_again(ground: Ground, running: RunningInjector) -> None:
    """What it says now goes into new pods; a file with faults is told and left aside."""
    file = ground.folder / "sidecar.yaml"
    good = file.read_text()
    async with ground.asking() as session:

        async def image() -> str:
            found = applied(pod(), await answer(session, url_of(running), review(pod())))
            return str(sidecar_in(found)["image"])

        before = await image()
        file.write_text(good.replace("container:", "containers:", 1))

        async def told() -> bool:
            errors = 'tallygate_injector_reload_errors_total{what="config"}'
            return f"{errors} 1.0" in await metrics(running)

        await eventually(told, timeout_s=20)
        assert await image() == before
        file.write_text(good.replace("tallygate:1.0.0", "tallygate:2.0.0"))

        async def taken() -> bool:
            return (await image()).endswith("2.0.0")

        await eventually(taken, timeout_s=20)


@pytest.mark.parametrize(
    ("spoilt", "error", "told"),
    [
        ({"injector_config": None}, RoleUnmet, "TALLYGATE_INJECTOR_CONFIG"),
        (
            {"injector_cert_file": None, "injector_key_file": None},
            RoleUnmet,
            "TALLYGATE_INJECTOR_CERT_SECRET",
        ),
    ],
)
async def test_it_starts_whole_or_not(
    ground: Ground, spoilt: dict[str, Any], error: type[Exception], told: str
) -> None:
    """What is missing is named by its setting."""
    with pytest.raises(error, match=told):
        async with injecting(ground.settings(**spoilt, injector_report_ms=0)):
            pass


async def test_a_bad_file_at_start_is_an_error(ground: Ground) -> None:
    """With no last good one to go on with, it does not start: each file is named."""
    (ground.folder / "tls.key").write_bytes(AUTHORITIES.found(NOW_US).key)
    with pytest.raises(InvalidField, match="cannot be used"):
        async with injecting(ground.settings(injector_report_ms=0)):
            pass
    (ground.folder / "sidecar.yaml").unlink()
    with pytest.raises(InvalidField, match="cannot be read"):
        async with injecting(ground.settings(injector_report_ms=0)):
            pass
