// `npm run build`: src/ as JavaScript in dist/, which plain node runs without type stripping; for packages and images.
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, rmSync } from "node:fs";
import { extname, join } from "node:path";

const root = join(import.meta.dirname, "..");
const [from, to] = [join(root, "src"), join(root, "dist")];

// A file that was renamed must not live on in dist.
rmSync(to, { recursive: true, force: true });
const compiled = spawnSync("tsc", ["-p", "tsconfig.build.json"], { cwd: root, stdio: "inherit" });
if (compiled.status !== 0) process.exit(compiled.status ?? 1);

// The compiler leaves behind what is neither TypeScript nor JavaScript, such as a script for Redis in its own file.
cpSync(from, to, { recursive: true, filter: (path) => ![".ts", ".js"].includes(extname(path)) });

const main = join(to, "main.js");
if (existsSync(main)) chmodSync(main, 0o755);
