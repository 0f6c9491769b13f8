"""Helm as a library, in a process of its own: `python -m tests.chart.helm`.

Owns the asking and the answering, a line of JSON each. Guarantees that the library's run time,
which is Go's and takes over signals, is never in a process that runs tests or forks. Refuses to
know the chart.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tallygate"
NAMESPACE = "metering"
RELEASE = "tg"


class Refused(Exception):
    """Helm does not render these values."""


class Question(TypedDict, total=False):
    """What is asked: of which chart, with which values."""

    what: str
    chart: str
    values: dict[str, object]
    upgrade: bool
    kubeconfig: str


class Helm:
    """A running library."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chart.helm"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it: it stops at the end of its input."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)

    def render(
        self, values: Mapping[str, object], *, chart: Path = CHART, upgrade: bool = False
    ) -> dict[str, str]:
        """Return rendered files by path. Raises `Refused`."""
        answer = self._ask(
            {"what": "render", "chart": str(chart), "values": dict(values), "upgrade": upgrade}
        )
        assert isinstance(answer, dict)
        return answer

    def lint(self, values: Mapping[str, object], *, chart: Path = CHART) -> list[str]:
        """Return what `helm lint --strict` finds worse than a hint."""
        answer = self._ask({"what": "lint", "chart": str(chart), "values": dict(values)})
        assert isinstance(answer, list)
        return answer

    def release(self, what: str, kubeconfig: Path, values: Mapping[str, object]) -> str:
        """Install, upgrade, rollback or uninstall the release for real; return what it is then.

        A rollback is to the first revision. Raises `Refused`.
        """
        answer = self._ask(
            {
                "what": what,
                "chart": str(CHART),
                "values": dict(values),
                "kubeconfig": str(kubeconfig),
            }
        )
        assert isinstance(answer, str)
        return answer

    def _ask(self, question: Question) -> object:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["answer"]


def _answer(question: Question) -> object:
    import helm_python  # noqa: PLC0415  # nobody else may load it

    values = question["values"]
    if question["what"] == "lint":
        found = helm_python.lint(question["chart"], values, strict=True, namespace=NAMESPACE)
        # 1 is a hint, as for an icon.
        return [f"{m['path']}: {m['error']}" for m in found["messages"] if m["severity"] > 1]
    if "kubeconfig" in question:
        return _released(question)
    with helm_python.Chart.load(question["chart"]) as chart:
        upgrade = question.get("upgrade", False)
        return chart.render(
            values,
            name=RELEASE,
            namespace=NAMESPACE,
            is_install=not upgrade,
            is_upgrade=upgrade,
            revision=2 if upgrade else 1,
        )


def _released(question: Question) -> str:
    import helm_python  # noqa: PLC0415  # nobody else may load it

    kubeconfig, values = question["kubeconfig"], question["values"]
    with helm_python.Config(kubeconfig_path=kubeconfig, namespace=NAMESPACE) as cluster:
        match question["what"]:
            case "install":
                done = cluster.install(question["chart"], RELEASE, values)
            case "upgrade":
                done = cluster.upgrade(question["chart"], RELEASE, values)
            case "rollback":
                cluster.rollback(RELEASE, version=1)
                done = cluster.status(RELEASE)
            case _:
                cluster.uninstall(RELEASE)
                return "gone"
        return str(done["status"])


def main() -> None:
    """Answer questions until there are none."""
    import helm_python  # noqa: PLC0415  # nobody else may load it

    for line in sys.stdin:
        try:
            reply = {"answer": _answer(json.loads(line))}
        except helm_python.HelmError as error:
            reply = {"refused": str(error)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
