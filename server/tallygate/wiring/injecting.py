"""Puts the injector together: its webhook, its certificate, its looks for pods that were missed.

Guarantees: it starts with a file and rules that are right, or not at all; while the Kubernetes API
is away it goes on answering with what it has; what starts is stopped in the opposite order.
Refuses to know: the command line.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from tallygate.adapters.certificates.authority import OwnAuthorities
from tallygate.adapters.certificates.files import ChangingFiles
from tallygate.adapters.kubernetes.client import KubernetesApi
from tallygate.adapters.kubernetes.pods import ClusterPods
from tallygate.adapters.kubernetes.trust import RegisteredWebhook, SharedSecret
from tallygate.adapters.prometheus.injector import InjectorMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.admission import AdmissionListener, AdmissionOptions
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions
from tallygate.api.ops_pages import Readiness
from tallygate.api.serving_tls import ServingTls
from tallygate.domain.errors import InvalidField
from tallygate.domain.injection import Asked, Verdict, inject
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.missed_injections import Look, LookForMissed
from tallygate.flow.webhook_certificate import KeepCertificate, KeptWhere
from tallygate.ports.kubernetes import Pair
from tallygate.settings import Settings
from tallygate.wiring.host import Host
from tallygate.wiring.injection_rules import (
    SidecarFile,
    access_of,
    own_namespace,
    rules_of,
    sidecar_now,
)
from tallygate.wiring.process import HEARTBEAT_MS
from tallygate.wiring.roles import RoleUnmet

# Kubelet itself brings a changed file within a minute.
FILES_MS: Final = 1_000
# One small read for each replica; a `caBundle` that somebody took away is back after it.
CERTIFICATE_MS: Final = 30_000


@dataclass(slots=True)
class RunningInjector:
    """An injector that is up: where it listens."""

    port: int = 0
    ops_port: int = 0


@asynccontextmanager
async def injecting(settings: Settings) -> AsyncIterator[RunningInjector]:
    """Start the injector; on leaving, linger, then stop it.

    Raises `RoleUnmet`, `InvalidField`, `AddressInUse` and `KubernetesSilent`.
    """
    injector = _Injector(settings)
    host = injector.host
    async with host.connections, host.stack:
        yield await injector.start()
        host.components["process"] = lambda: "draining"
        # The API server learns by and by that we leave; what it asks until then is answered.
        await asyncio.sleep(settings.injector_linger_ms / 1000)


async def look_once(settings: Settings) -> Look:
    """Look for pods without their sidecar, once. Raises `KubernetesSilent` and `InvalidField`."""
    sidecar = sidecar_now(settings.injector_config)
    api = KubernetesApi(access_of(settings))
    try:
        pods = ClusterPods(api)
        look = LookForMissed(pods, lambda: sidecar, rules_of(settings), _Unheard())
        return await look.run_once()
    finally:
        await api.close()


class _Unheard:
    """Hears nothing: whoever looks once is told by the answer."""

    def looked(self, look: Look) -> None:
        """Hear nothing."""


class _Injector:
    """Owns what the webhook answers with."""

    def __init__(self, settings: Settings) -> None:
        metrics = Metrics(CollectorRegistry(), version=metadata.version("tallygate"))
        self.host = Host(settings, metrics)
        self._metrics = InjectorMetrics(metrics.registry)
        self._settings = settings
        self._rules = rules_of(settings)
        self._tls = ServingTls()
        self._file = SidecarFile(settings.injector_config)
        self._authorities = OwnAuthorities()
        self._heartbeat = Heartbeat()

    async def start(self) -> RunningInjector:
        """Start what serves, then what looks after it."""
        host, settings = self.host, self._settings
        self._file.refresh()
        host.components["certificate"] = lambda: "ok" if self._tls.ready else "missing"
        host.stack.push_async_callback(host.end_loops)
        self._start_beating()
        ops = OpsListener(
            OpsOptions(
                address=settings.ops_address,
                registry=host.metrics.registry,
                readiness=self._readiness,
                heartbeat=self._heartbeat,
                stall_s=settings.loop_stall_ms / 1000,
                refused=host.metrics.ops_refused.inc,
            )
        )
        ops.start()
        host.stack.push_async_callback(asyncio.to_thread, ops.stop)
        self._keep_certificate()
        host.loop("injector-file", self._look_at_file, FILES_MS)
        if settings.injector_report_ms:
            pods = ClusterPods(self._api())
            look = LookForMissed(pods, self._file.current, self._rules, self._metrics)
            pace = LoopOptions(idle_ms=settings.injector_report_ms)
            host.spawn(Loop("missed-injections", look, host.clock, host.observer, pace))
        options = AdmissionOptions(
            settings.injector_address,
            self._tls,
            self._judge,
            self._metrics,
            settings.injector_calls_max,
        )
        listener = AdmissionListener(options)
        await listener.start()
        host.stack.push_async_callback(listener.stop)
        ops.set_serving("", True)
        return RunningInjector(listener.port, ops.port)

    def _judge(self, asked: Asked) -> Verdict:
        return inject(asked, self._file.current(), self._rules)

    def _api(self) -> KubernetesApi:
        api = KubernetesApi(access_of(self._settings))
        self.host.connections.push_async_callback(api.close)
        return api

    def _start_beating(self) -> None:
        async def beat() -> None:
            self._heartbeat.beat()

        self.host.loop("heartbeat", beat, HEARTBEAT_MS)

    def _keep_certificate(self) -> None:
        settings, host = self._settings, self.host
        certificate, key = settings.injector_cert_file, settings.injector_key_file
        if certificate is not None and key is not None:
            self._keep_files([certificate, key])
            return
        if not settings.injector_cert_secret:
            raise RoleUnmet(
                "the injector needs TALLYGATE_INJECTOR_CERT_FILE and its key, or"
                " TALLYGATE_INJECTOR_CERT_SECRET to make its own"
            )
        namespace = own_namespace(settings)
        if not namespace:
            raise RoleUnmet("outside of a pod the injector needs TALLYGATE_INJECTOR_NAMESPACE")
        api = self._api()
        where = KeptWhere(
            SharedSecret(api, namespace, settings.injector_cert_secret),
            RegisteredWebhook(api, settings.injector_webhook),
            self._authorities,
        )
        keep = KeepCertificate(where, [settings.injector_service], host.clock, self._take)
        pace = LoopOptions(idle_ms=CERTIFICATE_MS)
        host.spawn(Loop("webhook-certificate", keep, host.clock, host.observer, pace))

    def _keep_files(self, paths: list[Path]) -> None:
        files = ChangingFiles(paths)

        def refresh() -> None:
            found = files.read()
            if found is not None:
                certificate, key = found
                self._take(Pair(certificate, key))
                files.taken()

        async def look() -> None:
            try:
                refresh()
            except InvalidField as error:
                self._metrics.not_reloaded("certificate", error.message)

        # Without any certificate nothing can be served: that is said at once.
        refresh()
        self.host.loop("certificate-files", look, FILES_MS)

    def _take(self, pair: Pair) -> None:
        expires_us = self._authorities.expires_us(pair.certificate)
        self._tls.take(pair.certificate, pair.key)
        self._metrics.serving(expires_us)

    async def _look_at_file(self) -> None:
        try:
            if self._file.refresh():
                self._metrics.reloaded("config")
        except InvalidField as error:
            self._metrics.not_reloaded("config", error.message)

    def _readiness(self) -> Readiness:
        states = {name: state() for name, state in self.host.components.items()}
        return Readiness(all(state == "ok" for state in states.values()), states)
