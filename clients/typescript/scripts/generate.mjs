// Generate `src/gen` from the repository's protos, or with `--check` say whether it is stale.
//
// protoc is that of the repository's own environment (`make setup`), the plugin is ts-proto, both
// locked: the same protos give the same bytes.

import { execFileSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const PACKAGE = join(dirname(fileURLToPath(import.meta.url)), "..");
const ROOT = join(PACKAGE, "..", "..");
const GEN = join(PACKAGE, "src", "gen");
const PYTHON = join(ROOT, ".venv", "bin", "python");
const SOURCES = [
  ...["quota", "usage", "event", "limit", "reason"].map((name) => `tallygate/v1/${name}.proto`),
  "google/rpc/status.proto",
  "google/rpc/error_details.proto",
];
const OPTIONS = [
  "env=node",
  "esModuleInterop=true",
  "outputServices=grpc-js",
  // Amounts end at 2^53 - 1; what is beyond is refused, never rounded.
  "forceLong=number",
  "useOptionals=messages",
  // A `Date` has no microseconds.
  "useDate=false",
  "outputJsonMethods=false",
  "outputPartialMethods=false",
  "importSuffix=.js",
  "unrecognizedEnum=false",
];

function generate(out) {
  const find =
    "import grpc_tools, google.rpc, pathlib;" +
    "print(pathlib.Path(grpc_tools.__file__).parent / '_proto');" +
    "print(pathlib.Path(google.rpc.__path__[0]).parents[1])";
  const included = execFileSync(PYTHON, ["-c", find], { encoding: "utf8" }).trim().split("\n");
  execFileSync(
    PYTHON,
    [
      "-m",
      "grpc_tools.protoc",
      ...[join(ROOT, "protos"), ...included].map((path) => `--proto_path=${path}`),
      `--plugin=protoc-gen-ts_proto=${join(PACKAGE, "node_modules", ".bin", "protoc-gen-ts_proto")}`,
      `--ts_proto_out=${out}`,
      `--ts_proto_opt=${OPTIONS.join(",")}`,
      ...SOURCES,
    ],
    { stdio: "inherit" },
  );
}

function contents(folder) {
  const found = new Map();
  for (const name of readdirSync(folder, { recursive: true })) {
    const path = join(folder, name);
    if (statSync(path).isFile()) {
      found.set(relative(folder, path), readFileSync(path, "utf8"));
    }
  }
  return found;
}

const scratch = mkdtempSync(join(tmpdir(), "tallygate-gen-"));
try {
  generate(scratch);
  if (process.argv.includes("--check")) {
    const [fresh, present] = [contents(scratch), contents(GEN)];
    const stale = [...new Set([...fresh.keys(), ...present.keys()])].filter(
      (name) => fresh.get(name) !== present.get(name),
    );
    for (const name of stale) {
      console.error(`stale stub: ${name}`);
    }
    console.log(stale.length === 0 ? "The stubs are fresh." : "Run: npm run generate");
    process.exitCode = stale.length === 0 ? 0 : 1;
  } else {
    rmSync(GEN, { recursive: true, force: true });
    mkdirSync(GEN, { recursive: true });
    cpSync(scratch, GEN, { recursive: true });
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
