"""`python -m bench.peers.installed`: install the peers that `make bench-peers` measures beside us.

Owns which versions. Guarantees: versions are pinned and checked by Go's checksums; binaries lie in
.cache/peers, nothing is installed elsewhere but Go's own cache of modules.
Refuses to know: how they are run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "peers"
RATELIMIT_VERSION = "v1.4.1-0.20260122083618-3fb702589d36"
GUBERNATOR_VERSION = "v2.13.0"
RATELIMIT, GUBERNATOR = "service_cmd", "gubernator"
GO_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")
# What the Go checksum database does not know is checked by the go.sum that lies beside its go.mod.
PACKAGES = {
    RATELIMIT: (None, f"github.com/envoyproxy/ratelimit/src/service_cmd@{RATELIMIT_VERSION}"),
    GUBERNATOR: (
        Path(__file__).parent / "gubernator",
        "github.com/gubernator-io/gubernator/v2/cmd/gubernator",
    ),
}
BUILD_TIMEOUT_S = 1_800


def binary(name: str) -> Path | None:
    """Return where a peer's binary lies: in our folder, or on PATH; None for nowhere."""
    ours = FOLDER / name
    if ours.exists():
        return ours
    found = shutil.which(name)
    return Path(found) if found is not None else None


def install(name: str) -> None:
    """Build one peer with Go, unless it is there."""
    if (FOLDER / name).exists():
        return
    go = shutil.which("go") or next((each for each in GO_PLACES if Path(each).exists()), None)
    if go is None:
        sys.exit(f"bench: {name} is built with Go, which is not here; see https://go.dev")
    FOLDER.mkdir(parents=True, exist_ok=True)
    module, package = PACKAGES[name]
    sys.stderr.write(f"bench: building {package}, some minutes the first time …\n")
    subprocess.run(
        [go, "install", package],
        env=os.environ | {"GOBIN": str(FOLDER), "GOFLAGS": "-mod=readonly"},
        cwd=module,
        timeout=BUILD_TIMEOUT_S,
        check=True,
    )


if __name__ == "__main__":
    for each in PACKAGES:
        install(each)
