// Compile `src` to `dist`, and make each entry importable.
//
// The code is CommonJS, and a module of names around it is what `import` gets: so a process that
// does both has one copy of it, whose errors are the same classes and whose spools exclude each
// other.

import { execFileSync } from "node:child_process";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
// Made beside it and put in its place at the end: what runs meanwhile finds all of it.
const made = join(root, "build");
const require = createRequire(import.meta.url);
const ENTRIES =
  process.argv.length > 2 ? process.argv.slice(2) : ["index", "proto", "express", "fastify"];

rmSync(made, { recursive: true, force: true });
const tsc = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", root, "--outDir", made], {
  cwd: root,
  stdio: "inherit",
});

for (const entry of ENTRIES) {
  const names = Object.keys(require(join(made, `${entry}.js`))).filter(
    (name) => name !== "default" && name !== "__esModule",
  );
  const lines = [
    `import made from "./${entry}.js";`,
    `export const {\n${names.map((name) => `  ${name},\n`).join("")}} = made;`,
  ];
  writeFileSync(join(made, `${entry}.mjs`), `${lines.join("\n")}\n`);
  writeFileSync(join(made, `${entry}.d.mts`), `export * from "./${entry}.js";\n`);
}
rmSync(dist, { recursive: true, force: true });
renameSync(made, dist);
