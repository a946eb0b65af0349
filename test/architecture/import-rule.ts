import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

export interface SourceFile {
  /** From the root of the repository, with slashes: "src/cache/cache.ts". */
  readonly path: string;
  readonly text: string;
}

export interface Violation {
  readonly path: string;
  readonly specifier: string;
  /** The rule, in words. */
  readonly why: string;
}

interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
}

/** Rooms under src/ that are not a capability, and what they may import besides themselves and the generated code. */
const rooms = new Map<string, readonly string[]>([
  ["infra", []],
  ["server", ["infra"]],
  ["config", ["infra"]],
  ["cli", ["config", "server", "infra"]],
  ["gen", []],
]);
// The settings of a capability are written down there, and read in config: its types, never its code.
const typesFromAnywhere = new Set(["config"]);
const compositionRoot = "main";
const drivers = new Set(["ioredis", "redlock", "pg", "better-sqlite3"]);
const backend = /^(redis|redlock|sql|sqlite|postgres|memory)(-[a-z0-9-]+)?\.ts$/;

/** Every import that crosses a wall it must not cross. */
export function findViolations(files: readonly SourceFile[]): Violation[] {
  return files.flatMap((file) =>
    importsOf(file.text).flatMap(({ specifier, typeOnly }) => {
      const why = file.path.startsWith("sdk/")
        ? whyNotInSdk(file.path, specifier)
        : whyNotInServer(file.path, { specifier, typeOnly });
      return why ? [{ path: file.path, specifier, why }] : [];
    }),
  );
}

/** What the rule is about: the server's and the clients' TypeScript, without tests. */
export function readSources(root: string): SourceFile[] {
  return ["src", "sdk"].flatMap((folder) => {
    let names: string[];
    try {
      names = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" });
    } catch {
      return [];
    }
    return names
      .map((name) => join(folder, name).split(sep).join("/"))
      .filter((path) => /(?<!\.test)(?<!\.d)\.ts$/.test(path) && !/\/(node_modules|dist|test)\//.test(path))
      .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
  });
}

// The formatter puts each import at the start of a line, so no parser is needed; a text that only looks like one fails loudly.
function importsOf(text: string): Import[] {
  const found: Import[] = [];
  for (const match of text.matchAll(
    /^\s*(?:import|export)\s+(type\s+)?(?:[\w*{][^;"'`=()]*?\sfrom\s+)?["']([^"']+)["']/gm,
  )) {
    found.push({ specifier: match[2] ?? "", typeOnly: match[1] !== undefined });
  }
  for (const match of text.matchAll(/\bimport\(\s*["'`]([^"'`]+)["'`]/g)) {
    found.push({ specifier: match[1] ?? "", typeOnly: false });
  }
  return found;
}

function whyNotInServer(path: string, { specifier, typeOnly }: Import): string | undefined {
  const from = roomOf(path);
  if (!specifier.startsWith(".")) {
    const free = from === compositionRoot || from === "infra" || isBackend(path);
    return drivers.has(packageOf(specifier)) && !free
      ? "only infra and a capability's backends use a driver"
      : undefined;
  }
  const target = resolve(path, specifier);
  if (target === "package.json") return undefined;
  if (!target.startsWith("src/")) return "the server imports nothing from outside src";
  if (from === compositionRoot) return undefined;
  const to = roomOf(target);
  if (to === compositionRoot) return "nobody imports the composition root";
  if (to === from) {
    const breaks = !rooms.has(from) && isBackend(target) && !isBackend(path);
    return breaks ? "a capability's rules know the port, not its backends" : undefined;
  }
  if (to === "gen") return undefined;
  if (typeOnly && typesFromAnywhere.has(from)) return undefined;
  const allowed = rooms.get(from) ?? ["infra"];
  if (allowed.includes(to)) return undefined;
  return `${from} may import ${["itself", "gen", ...allowed].join(", ")}; not ${to}`;
}

function whyNotInSdk(path: string, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  return resolve(path, specifier).startsWith("sdk/") ? undefined : "a client imports nothing of the server";
}

/** "src/cache/cache.ts" is in the room "cache"; "src/config.ts" is the door of the room "config". */
function roomOf(path: string): string {
  return path.split("/")[1]?.replace(/\.ts$/, "") ?? "";
}

function isBackend(path: string): boolean {
  const [, room, ...rest] = path.split("/");
  return room !== undefined && !rooms.has(room) && backend.test(rest.at(-1) ?? "");
}

function resolve(path: string, specifier: string): string {
  return relative(".", join(dirname(path), specifier))
    .split(sep)
    .join("/");
}

function packageOf(specifier: string): string {
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}
