import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { scratchDirectory } from "./scratch.ts";

const repository = join(import.meta.dirname, "../..");
const source = join(repository, "src/main.ts");

export interface ServerBuild {
  /** What node is to run. */
  readonly entry: string;
  /** Makes it again, from what the code is now. */
  refresh(): Promise<void>;
  remove(): void;
}

/**
 * The server in a few files. Tests start it by the hundred, and most of what a start costs is finding, reading and linking the
 * modules that it consists of, one by one. Each run of the tests makes its own from the code as it is, so it is never an old one.
 * `TEST_SERVER=source make test` does without, for stacks that name the lines of the sources.
 */
export async function buildServer(): Promise<ServerBuild> {
  if (process.env.TEST_SERVER === "source") return sources;
  const directory = scratchDirectory("server");
  const output = join(directory.path, "dist");
  try {
    // The code looks for these two where they are seen from src/.
    for (const name of ["package.json", "node_modules"])
      symlinkSync(join(repository, name), join(directory.path, name));
    mkdirSync(output);
    await bundle(output);
  } catch (error) {
    directory.remove();
    // Tests that start no server can still be run while it is being rewritten; those that do will not get far.
    console.warn("The server is started from its sources, since it cannot be bundled:", error);
    return sources;
  }
  return { entry: join(output, "main.js"), refresh: () => bundle(output), remove: () => directory.remove() };
}

const sources: ServerBuild = { entry: source, refresh: async () => {}, remove: () => {} };

async function bundle(directory: string): Promise<void> {
  await using build = await rolldown({
    input: source,
    platform: "node",
    // They have parts that are not JavaScript, which they look for beside themselves.
    external: ["better-sqlite3", "grpc-health-check", "@grpc/reflection"],
    logLevel: "warn",
  });
  await build.write({
    dir: directory,
    format: "esm",
    // One folder down, as in src/, so that paths which are relative to a module stay true.
    chunkFileNames: "parts/[name]-[hash].js",
    // Failures are called by the names of their classes.
    keepNames: true,
  });
}
