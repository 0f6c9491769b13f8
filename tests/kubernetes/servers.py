"""A real Kubernetes control plane on loopback: etcd, the API server, and the controllers.

`python -m tests.kubernetes.servers` builds what is missing. Owns the binaries, their folder and
their processes. Guarantees that what it started is ended, and that nothing listens beyond loopback.
Refuses to know what is asked of them. No kubelet takes part: pods are made and none runs.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT: Final = Path(__file__).resolve().parents[2]
MODULE: Final = Path(__file__).parent / "apiserver"
BUILT: Final = Path(os.environ.get("KUBERNETES_BIN", ROOT / "build" / "kubernetes"))
BINARIES: Final = ("kube-apiserver", "kube-controller-manager")
ADMIN: Final = "admin-of-a-test"
# Those that make pods of workloads, and the accounts that pods run as.
CONTROLLERS: Final = (
    "deployment-controller,replicaset-controller,job-controller,cronjob-controller,"
    "serviceaccount-controller,namespace-controller"
)


def build() -> None:
    """Build what is not there yet, at the locked version: some minutes of a processor."""
    if shutil.which("etcd") is None:
        sys.exit("etcd is missing; Debian has it as etcd-server")
    missing = [name for name in BINARIES if not (BUILT / name).is_file()]
    if missing and shutil.which("go") is None:
        sys.exit("go is missing, which builds the API server")
    version = _version()
    major, minor, _ = version.split(".")
    stamped = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamped.items())
    for name in missing:
        sys.stdout.write(f"Building {name} {version}\n")
        sys.stdout.flush()
        subprocess.run(
            [
                *("go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false"),
                *("-ldflags", f"-s -w {flags}", "-o", str(BUILT / name)),
                f"k8s.io/kubernetes/cmd/{name}",
            ],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
        )


def _version() -> str:
    for line in (MODULE / "go.mod").read_text().splitlines():
        words = line.replace("require", "").split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1].removeprefix("v")
    raise AssertionError("go.mod names no version")


@dataclass(frozen=True)
class ControlPlane:
    """A running one: where it is, and the files that let an administrator in."""

    folder: Path
    url: str

    @property
    def ca_file(self) -> Path:
        """The authority of the API server's certificate."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def token_file(self) -> Path:
        """An administrator's token."""
        return self.folder / "admin.token"

    def told(self) -> str:
        """Return the ends of the logs, for whoever wonders."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in logs)


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run one until the block ends; whoever enters waits for it to be ready by asking."""
    build()
    etcd, peer, secure = (_free_port() for _ in range(3))
    plane = ControlPlane(folder, f"https://127.0.0.1:{secure}")
    _write_files(plane)
    store = f"http://127.0.0.1:{etcd}"
    with contextlib.ExitStack() as stack:
        for command in (
            [
                *("etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
                *("--listen-client-urls", store, "--advertise-client-urls", store),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            ],
            [
                *(str(BUILT / "kube-apiserver"), f"--etcd-servers={store}"),
                *("--bind-address=127.0.0.1", f"--secure-port={secure}"),
                *(f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC"),
                *("--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none"),
                *(f"--token-auth-file={folder / 'tokens.csv'}", "--audit-log-path=-"),
                *(f"--service-account-key-file={folder / 'accounts.key'}",),
                *(f"--service-account-signing-key-file={folder / 'accounts.key'}",),
                *("--service-account-issuer=https://kubernetes.default.svc",),
            ],
            [
                *(str(BUILT / "kube-controller-manager"), f"--controllers={CONTROLLERS}"),
                *(f"--kubeconfig={folder / 'kubeconfig'}", "--leader-elect=false"),
                *("--secure-port=0", "--use-service-account-credentials=false"),
            ],
        ):
            _start(stack, command, folder)
        yield plane


def _start(stack: contextlib.ExitStack, command: list[str], folder: Path) -> None:
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
    if command[0].endswith("controller-manager"):
        # It gives up where the API server does not answer yet; a shell asks again.
        command = ["sh", "-c", 'until "$@"; do :; done', "sh", *command]
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(timeout=30)


def _write_files(plane: ControlPlane) -> None:
    folder = plane.folder
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "accounts.key").write_bytes(key)
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
    plane.token_file.write_text(ADMIN)
    (folder / "kubeconfig").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
        f"clusters: [{{name: here, cluster: {{server: '{plane.url}',"
        f" certificate-authority: '{plane.ca_file}'}}}}]\n"
        f"users: [{{name: admin, user: {{token: {ADMIN}}}}}]\n"
        "contexts: [{name: here, context: {cluster: here, user: admin}}]\n"
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    build()
