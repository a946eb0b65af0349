/**
 * `npm run lockfile` (after adding a dependency) and `npm run lockfile -- --check`.
 *
 * Tools ship one optional package for each platform. A registry mirror that carries only some platforms makes `npm install` leave
 * the others out of package-lock.json, and `npm ci` then refuses that file everywhere. This writes the missing entries: their
 * versions are pinned by the package that wants them, their platforms are in their names, and npm fetches one only on its platform.
 */
import { readFileSync, writeFileSync } from "node:fs";

// Read as they are, so that what is not ours is written back untouched.
interface Entry {
  readonly [field: string]: unknown;
  readonly dev?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
type Packages = Readonly<Record<string, Entry>>;
interface Lockfile {
  readonly [field: string]: unknown;
  readonly packages: Packages;
}

// As npm names them, by what packages call themselves.
const cpus = new Map([
  ["x64", "x64"],
  ["arm64", "arm64"],
  ["aarch64", "arm64"],
  ["armv7", "arm"],
]);

const file = new URL("../package-lock.json", import.meta.url);
const lock: Lockfile = JSON.parse(readFileSync(file, "utf8"));
const missing = missingEntries(lock.packages);
const names = Object.keys(missing);

if (names.length === 0) {
  console.log("package-lock.json names every platform's packages.");
} else if (process.argv.includes("--check")) {
  console.error(`package-lock.json lacks ${names.join(", ")}: \`npm ci\` will refuse it. Run: npm run lockfile`);
  process.exitCode = 1;
} else {
  const all = Object.entries({ ...lock.packages, ...missing }).sort(([a], [b]) => a.localeCompare(b, "en"));
  writeFileSync(file, `${JSON.stringify({ ...lock, packages: Object.fromEntries(all) }, null, 2)}\n`);
  console.log(`Added to package-lock.json: ${names.join(", ")}`);
}

function missingEntries(packages: Packages): Packages {
  const found: Record<string, Entry> = {};
  for (const [path, entry] of Object.entries(packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      const nested = `${path}/node_modules/${name}`;
      if (packages[nested] || packages[`node_modules/${name}`]) continue;
      found[`node_modules/${name}`] = { version, ...(entry.dev && { dev: true }), optional: true, ...platform(name) };
    }
  }
  return found;
}

function platform(name: string): Record<string, string[]> {
  const words = name.replace(/^@[^/]+\//, "").split("-");
  const os = words.find((word) => ["linux", "darwin", "win32", "android", "freebsd"].includes(word));
  const cpu = words.map((word) => cpus.get(word)).find((known) => known !== undefined);
  if (!os || !cpu) throw new Error(`${name}: its name does not say which platform it is for; add its entry by hand.`);
  return { cpu: [cpu], ...(words.includes("musl") && { libc: ["musl"] }), os: [os] };
}
