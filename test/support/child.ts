import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { atEnd } from "./at-end.ts";
import { lookUp, searchPath } from "./binaries.ts";
import { signal, signalTree } from "./process-tree.ts";

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  /** The whole environment. Default: this process's own. */
  readonly env?: NodeJS.ProcessEnv;
  /** Run as somebody else; only root may. */
  readonly user?: { readonly uid: number; readonly gid: number };
  /** Told each complete line of output; the child is ready once this returns true. */
  readonly isReady: (line: string) => boolean;
  /** Default 60 s. */
  readonly readyTimeoutMs?: number;
}

export interface Child {
  readonly pid: number;
  /** Everything it has written so far to stdout and stderr. */
  output(): string;
  /** Its exit code or signal; undefined while it runs. */
  exited(): string | undefined;
  pause(): void;
  resume(): void;
  /** SIGKILL to it and its children; resolves when it is gone. */
  kill(): Promise<void>;
  /** The given signal, then SIGKILL when it has not ended in 15 s; resolves when it is gone. */
  stop(name: NodeJS.Signals): Promise<void>;
}

const running = new Set<number>();

atEnd("processes", () => {
  for (const pid of running) signalTree(pid, "SIGKILL");
});

/** Runs a program and resolves once it is ready. It never outlives this process, however this process ends. */
export async function startChild(options: ChildOptions): Promise<Child> {
  const [command = options.command, ...args] = boundToParent([options.command, ...options.args]);
  const spawned = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ["ignore", "pipe", "pipe"],
    ...options.user,
  });
  const { pid } = spawned;
  if (pid === undefined) throw await spawnError(spawned);
  running.add(pid);
  const child = asChild(spawned, pid);
  try {
    await ready(spawned, child, options);
    return child;
  } catch (error) {
    await child.kill();
    const commandLine = [options.command, ...options.args].join(" ");
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${commandLine}: ${why}. Its output:\n${child.output()}`, { cause: error });
  }
}

async function spawnError(spawned: ChildProcess): Promise<unknown> {
  const [error] = await once(spawned, "error");
  return error;
}

function asChild(spawned: ChildProcess, pid: number): Child {
  let output = "";
  for (const stream of [spawned.stdout, spawned.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
    });
  }
  let isFrozen = false;
  let ended: string | undefined;
  const gone = new Promise<void>((resolve) => {
    spawned.once("close", (code, signalName) => {
      ended = signalName ?? `exit code ${code}`;
      running.delete(pid);
      resolve();
    });
  });
  return {
    pid,
    output: () => output,
    exited: () => ended,
    pause: () => {
      isFrozen = true;
      signalTree(pid, "SIGSTOP");
    },
    resume: () => {
      isFrozen = false;
      signalTree(pid, "SIGCONT");
    },
    kill: async () => {
      if (ended === undefined) signalTree(pid, "SIGKILL");
      await gone;
    },
    stop: async (name) => {
      if (ended !== undefined) return;
      signal(pid, name);
      // A frozen process does not see the signal until it is thawed. The others need no thawing, which takes a look at all processes.
      if (isFrozen) signalTree(pid, "SIGCONT");
      const impatient = setTimeout(() => signalTree(pid, "SIGKILL"), 15_000);
      await gone;
      clearTimeout(impatient);
    },
  };
}

function ready(spawned: ChildProcess, child: Child, options: ChildOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const timeoutMs = options.readyTimeoutMs ?? 60_000;
    const timer = setTimeout(() => reject(new Error(`not ready after ${timeoutMs} ms`)), timeoutMs);
    spawned.once("close", () => {
      clearTimeout(timer);
      reject(new Error(`ended before it was ready (${child.exited()})`));
    });
    for (const stream of [spawned.stdout, spawned.stderr]) {
      let rest = "";
      stream?.on("data", (chunk: string) => {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        if (!lines.some((line) => options.isReady(line))) return;
        clearTimeout(timer);
        resolve();
      });
    }
  });
}

// An exit hook cannot run when this process is killed outright. Where Linux offers it, the child asks to be killed with its parent.
function boundToParent(command: string[]): string[] {
  if (process.platform !== "linux") return command;
  const setpriv = lookUp("setpriv", searchPath());
  return setpriv ? [setpriv, "--pdeathsig", "KILL", "--", ...command] : command;
}
