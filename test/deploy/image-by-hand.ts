import { execFile } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, statSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { copyForm, type Instruction, type Stage } from "./dockerfile.ts";

export interface BuiltStage {
  /** The directory that stands for "/". */
  readonly root: string;
  readonly workdir: string;
  /** With the image's own node first. */
  readonly path: string;
  /** A path in the image as a path on this machine. */
  at(path: string): string;
}

/** Carries out a Dockerfile's WORKDIR, COPY and RUN, with one directory per stage in place of a container. */
export async function buildByHand(project: string, stages: readonly Stage[], directory: string): Promise<BuiltStage> {
  const built = new Map<string, BuiltStage>();
  let last: BuiltStage | undefined;
  for (const [index, stage] of stages.entries()) {
    last = await buildStage(stage, { project, root: join(directory, stage.name ?? String(index)), built });
    if (stage.name) built.set(stage.name, last);
  }
  if (!last) throw new Error("The Dockerfile has no stage.");
  return last;
}

interface Surroundings {
  readonly project: string;
  readonly root: string;
  readonly built: ReadonlyMap<string, BuiltStage>;
}

async function buildStage(stage: Stage, { project, root, built }: Surroundings): Promise<BuiltStage> {
  const binaries = join(root, "usr/local/bin");
  mkdirSync(binaries, { recursive: true });
  // What the base image brings. A copy, because the directories above this process's node may be closed to other users.
  copyFileSync(process.execPath, join(binaries, "node"));
  chmodSync(join(binaries, "node"), 0o755);

  // Not the project's own node_modules/.bin, which npm put on this process's PATH: the image has none.
  const system = (process.env.PATH ?? "").split(delimiter).filter((entry) => !entry.includes("node_modules"));
  let workdir = root;
  const at = (path: string) => (path.startsWith("/") ? join(root, path) : join(workdir, path));
  const now = (): BuiltStage => ({ root, workdir, path: [binaries, ...system].join(delimiter), at });

  for (const instruction of stage.instructions) {
    if (instruction.name === "WORKDIR") {
      workdir = join(root, instruction.text);
      mkdirSync(workdir, { recursive: true });
    } else if (instruction.name === "COPY") {
      copy(instruction, { at, source: (from) => (from ? built.get(from)?.at : (path) => join(project, path)) });
    } else if (instruction.name === "RUN") {
      await shell(instruction.text, now());
    }
  }
  return now();
}

function copy(
  { text }: Instruction,
  {
    at,
    source,
  }: { at: (path: string) => string; source: (from: string | undefined) => ((path: string) => string) | undefined },
): void {
  const { from, sources, target } = copyForm(text);
  const locate = source(from);
  if (!locate) throw new Error(`COPY ${text}: there is no stage ${from}.`);
  for (const name of sources) {
    const found = locate(name);
    // As Docker does: a directory's contents go into the target, a file goes below a target that ends in a slash.
    const into = statSync(found).isDirectory() || !target.endsWith("/") ? at(target) : join(at(target), basename(name));
    cpSync(found, into, { recursive: true, verbatimSymlinks: true });
  }
}

async function shell(command: string, { root, workdir, path }: BuiltStage): Promise<void> {
  // Absolute paths of the image lie below the stage's directory here.
  let here = command.replaceAll(/(?<=\s)\/(?=[a-z])/g, `${root}/`);
  // Only root can give a directory away; for anybody else it already belongs to the user who will run the server.
  if (process.getuid?.() !== 0) here = here.replace(/ && chown \S+ \S+/, "");
  const env = {
    ...withoutNpm(process.env),
    PATH: path,
    npm_config_prefer_offline: "true",
    npm_config_update_notifier: "false",
  };
  const { code, output } = await run(here, { cwd: workdir, env });
  if (code !== 0) throw new Error(`RUN ${command}: exit code ${code}. Its output:\n${output}`);
}

function run(
  command: string,
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<{ code: unknown; output: string }> {
  return new Promise((resolve) => {
    execFile("sh", ["-c", command], { ...options, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, output: stdout + stderr });
    });
  });
}

// A test that npm started has npm's settings in its environment; a build has not.
function withoutNpm(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const keep = Object.entries(env).filter(([name]) => !/^(npm_|INIT_CWD|NODE_|VITEST)/i.test(name));
  return Object.fromEntries(keep);
}

export function isBuilt(stage: BuiltStage, path: string): boolean {
  return existsSync(stage.at(path));
}
