import { execFile } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { lookUp, searchPath } from "../support/binaries.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { root, type Snippet } from "./snippet.ts";

export interface Outcome {
  readonly code: number | undefined;
  readonly output: string;
}

/** Where each tool would be that a snippet may use; grpcurl is built by scripts/ensure-grpc-tools.sh. */
const tools = [join(root, "node_modules/.bin"), join(root, ".cache/bin")];

/** The tool a snippet needs beside those that the project brings. */
function toolOf({ language, code }: Snippet): string | undefined {
  switch (language) {
    case "python":
      return "python3";
    case "rust":
      return "cargo";
    case "csharp":
      return "dotnet";
    case "bash":
      return code.includes("grpcurl ") ? "grpcurl" : "curl";
    default:
      return undefined;
  }
}

/** Undefined when it can be run here. */
export function whyNotRun(snippet: Snippet): string | undefined {
  const tool = toolOf(snippet);
  const isMissing = tool !== undefined && lookUp(tool, [...tools, ...searchPath()]) === undefined;
  return snippet.skip ?? (isMissing ? `${tool} is not installed` : undefined);
}

/** The same code for a server on other ports than the default ones. */
export function aimedAt({ grpcAddress, httpUrl }: HoldfastProcess, code: string): string {
  return code.replaceAll("127.0.0.1:7420", grpcAddress).replaceAll("http://127.0.0.1:7421", httpUrl);
}

function run(
  command: string,
  args: readonly string[],
  { cwd = root, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Outcome> {
  const path = [...tools, process.env.PATH].join(delimiter);
  return new Promise((resolve, reject) => {
    const options = { cwd, env: { ...process.env, PATH: path, ...env }, timeout: 110_000 };
    const child = execFile(command, args, options, (error, stdout, stderr) => {
      if (error && typeof error.code === "string") reject(error);
      else resolve({ code: child.exitCode ?? undefined, output: stdout + stderr });
    });
    child.stdin?.end();
  });
}

export const runBash = (code: string, env: Readonly<Record<string, string>> = {}) =>
  run("bash", ["-euo", "pipefail", "-c", code], { env });

export const runTypeScript = (code: string, env: Readonly<Record<string, string>> = {}) =>
  run(process.execPath, ["--input-type=module-typescript", "--eval", code], { env });

/** What the compiler says of it under the project's own rules; empty when nothing. */
export async function typeErrors(code: string): Promise<string> {
  // Inside the project, so that its packages are found.
  const directory = join(root, ".cache", `docs-${process.pid}`);
  mkdirSync(directory, { recursive: true });
  try {
    writeFileSync(join(directory, "snippet.ts"), code.replaceAll('"./src/', '"../../src/'));
    const config = { extends: "../../tsconfig.json", include: ["snippet.ts"] };
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
    return (await run("tsc", ["-p", directory])).output;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export const runPython = (code: string) => run("python3", ["-c", code]);

/** As a crate of its own, with what its first comment adds to it. `unreachable`: the crates could not be had. */
export async function runRust(code: string): Promise<Outcome | "unreachable"> {
  using crate = disposable(scratchDirectory("rust"));
  mkdirSync(join(crate.path, "src"));
  writeFileSync(join(crate.path, "Cargo.toml"), '[package]\nname = "snippet"\nversion = "0.1.0"\nedition = "2021"\n');
  writeFileSync(join(crate.path, "src/main.rs"), code);
  const [, additions = ""] = /^\/\/ (cargo add .*)$/m.exec(code) ?? [];
  const options = { cwd: crate.path, env: { CARGO_TARGET_DIR: join(crate.path, "target") } };
  const added = await run("bash", ["-euo", "pipefail", "-c", `${additions}\ncargo fetch`], options);
  if (added.code !== 0) {
    if (/network|resolve host|connect|download|timed? ?out|spurious|offline/i.test(added.output)) return "unreachable";
    return added;
  }
  return await run("cargo", ["run", "--quiet"], options);
}

export async function runCsharp(code: string): Promise<Outcome> {
  using project = disposable(scratchDirectory("dotnet"));
  const made = await run("dotnet", ["new", "console", "--output", project.path, "--name", "Snippet"]);
  if (made.code !== 0) return made;
  writeFileSync(join(project.path, "Program.cs"), code);
  return await run("dotnet", ["run", "--project", project.path]);
}

function disposable(directory: { readonly path: string; remove(): void }) {
  return { path: directory.path, [Symbol.dispose]: () => directory.remove() };
}
