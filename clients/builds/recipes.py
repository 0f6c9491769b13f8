"""What is run to build, test and pack each client, and to run its sample in an empty project.

Owns the commands. Guarantees that nothing is installed from an index that is not the machine's own
setting. Refuses to know in which order clients are treated, and how long that takes.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final = ROOT / "clients"
READMES: Final = CLIENTS / "readme"
GO_MODULE: Final = "github.com/tallygate/tallygate/clients/go"
UV: Final = str(Path(sys.executable).with_name("uv"))

Commands = tuple[tuple[str, ...], ...]

POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>sample</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>io.tallygate</groupId>
      <artifactId>tallygate-client</artifactId>
      <version>1.0.0</version>
    </dependency>
  </dependencies>
</project>
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One client: its tool, its folder, and what is run there.

    `build` makes what the cases need, `test` its own tests, `pack` its packages into `dist`.
    `install` fills an empty folder, and returns what runs the sample there.
    """

    name: str
    tool: str
    folder: Path
    build: Commands
    test: Commands
    pack: Commands
    install: Callable[[Path], tuple[Commands, tuple[str, ...]]]
    made: Path
    """What building it leaves; without it, it is built anew."""
    beside: Commands = ()
    """Tests of its own that want a sidecar, which `TALLYGATE_TARGET` names."""

    @property
    def present(self) -> bool:
        """Whether the client, and what builds it, are there."""
        return self.folder.is_dir() and shutil.which(self.tool) is not None


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    assert found, f"no {pattern} in {folder}"
    return found[-1]


def _python(into: Path) -> tuple[Commands, tuple[str, ...]]:
    wheel = _newest(CLIENTS / "python" / "dist", "*.whl")
    own = str(into / "env" / "bin" / "python")
    shutil.copy(READMES / "sample.py", into / "sample.py")
    return (
        (UV, "venv", "--quiet", "--python", sys.executable, "env"),
        (UV, "pip", "install", "--quiet", "--python", own, str(wheel)),
    ), (own, "sample.py")


def _go(into: Path) -> tuple[Commands, tuple[str, ...]]:
    shutil.copy(READMES / "go" / "main.go", into / "main.go")
    return (
        ("go", "mod", "init", "example.com/sample"),
        ("go", "mod", "edit", f"-replace={GO_MODULE}={CLIENTS / 'go'}"),
        ("go", "mod", "tidy"),
        ("go", "vet", "."),
        ("go", "build", "-o", "sample", "."),
    ), ("./sample",)


def _node(into: Path) -> tuple[Commands, tuple[str, ...]]:
    packed = _newest(CLIENTS / "typescript" / "dist" / "pack", "*.tgz")
    shutil.copy(READMES / "sample.mjs", into / "sample.mjs")
    (into / "package.json").write_text('{"name": "sample", "private": true}\n')
    required = 'if (!require("@tallygate/client").Client) process.exit(1)'
    return (
        ("npm", "install", *NPM_QUIET, str(packed)),
        ("node", "-e", required),
    ), ("node", "sample.mjs")


def _java(into: Path) -> tuple[Commands, tuple[str, ...]]:
    (into / "pom.xml").write_text(POM)
    sources = into / "src" / "main" / "java"
    sources.mkdir(parents=True)
    shutil.copy(READMES / "java" / "Sample.java", sources / "Sample.java")
    path = "-Dmdep.outputFile=path.txt"
    return (
        (*MAVEN, "compile", "dependency:build-classpath", path),
        ("sh", "-c", 'printf -- "-cp target/classes:%s Sample" "$(cat path.txt)" > arguments'),
    ), ("java", *JAVA_QUICK, "@arguments")


NPM_QUIET: Final = ("--prefer-offline", "--no-audit", "--no-fund", "--silent")
MAVEN: Final = ("mvn", "--quiet", "--batch-mode", "--no-transfer-progress")
JAVA_QUICK: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_PYTHON_DIST: Final = ("-m", "hatchling", "build", "-d", "dist")

RECIPES: Final[Sequence[Recipe]] = (
    Recipe(
        "python",
        sys.executable,
        CLIENTS / "python",
        build=(),
        test=((sys.executable, "-m", "pytest", "-n", "0", "-q", "tests"),),
        pack=((sys.executable, *_PYTHON_DIST),),
        install=_python,
        made=CLIENTS / "python",
    ),
    Recipe(
        "go",
        "go",
        CLIENTS / "go",
        build=(("go", "build", "-o", "build/conformance", "./internal/conformance"),),
        test=(
            ("go", "vet", "./..."),
            ("go", "vet", "-tags", "sidecar", "./internal/sidecar"),
            ("go", "test", "./..."),
            (sys.executable, "../../protos/generate_go.py", "--check"),
        ),
        pack=(("sh", "-c", 'test -z "$(gofmt -l .)"'), ("go", "list", "./...")),
        install=_go,
        made=CLIENTS / "go" / "build" / "conformance",
        # Never from the cache: the sidecar is another one each time.
        beside=(("go", "test", "-count=1", "-tags", "sidecar", "./internal/sidecar"),),
    ),
    Recipe(
        "node",
        "node",
        CLIENTS / "typescript",
        build=(("npm", "ci", *NPM_QUIET), ("npm", "run", "--silent", "build")),
        test=(
            ("npm", "run", "--silent", "lint"),
            ("npm", "test", "--silent"),
            ("npm", "run", "--silent", "generate", "--", "--check"),
        ),
        pack=(
            ("mkdir", "-p", "dist/pack"),
            ("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", "dist/pack"),
        ),
        install=_node,
        made=CLIENTS / "typescript" / "dist",
        beside=(("npm", "run", "--silent", "test:sidecar"),),
    ),
    Recipe(
        "java",
        "mvn",
        CLIENTS / "java",
        build=((*MAVEN, "-DskipTests", "install"),),
        # Not offline: what runs the tests is fetched by the first of them.
        test=((*MAVEN, "test"),),
        pack=(("sh", "-c", "ls */target/*.jar"),),
        install=_java,
        made=CLIENTS / "java" / "target" / "conformance.args",
        beside=((*MAVEN, "-Psidecar", "test"),),
    ),
)
