// Builds the page into a directory, or with `--compare` looks whether what lies there is what would be built. What the server sends packed is packed
// here; what is packed is compared unpacked, since other versions of the packer may pack it differently.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { build } from "vite";

const [first, second] = process.argv.slice(2);
const isComparing = first === "--compare";
const target = resolve((isComparing ? second : first) ?? "dist");
const outDir = isComparing ? mkdtempSync(join(tmpdir(), "evercell-dist-")) : target;

for (const [index, configFile] of ["vite.config.ts", "vite.frame.config.ts", "vite.vega.config.ts"].entries()) {
  await build({ configFile, logLevel: "warn", build: { outDir, emptyOutDir: index === 0 } });
}
for (const name of files(outDir)) {
  if (!/^(assets|libraries)\//.test(name)) continue;
  writeFileSync(join(outDir, `${name}.gz`), gzipSync(readFileSync(join(outDir, name)), { level: 9 }));
  rmSync(join(outDir, name));
}
if (isComparing) {
  const [is, should] = [contents(target), contents(outDir)];
  rmSync(outDir, { recursive: true });
  const names = [...new Set([...is.keys(), ...should.keys()])].filter((name) => is.get(name) !== should.get(name)).sort();
  if (names.length > 0) {
    console.error(`web/dist is not what would be built: ${names.join(", ")}\n\nhint: \`make web\` builds it; commit it with the change`);
    process.exit(1);
  }
} else {
  const sizes = files(outDir).map((name) => readFileSync(join(outDir, name)).length);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`${sizes.length} files, ${Math.round(total / 1024)} KiB`);
  // What everybody carries who clones or runs this.
  if (total > 1_500_000) throw new Error("the built page is to stay below 1.5 MB");
}

function files(directory) {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort();
}

function contents(directory) {
  return new Map(files(directory).map((name) => {
    const content = readFileSync(join(directory, name));
    return [name, (name.endsWith(".gz") ? gunzipSync(content) : content).toString("latin1")];
  }));
}
