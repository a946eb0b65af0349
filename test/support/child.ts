import { type ChildProcess, spawn } from "node:child_process";
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
let watching = false;

/** Runs a program until it says that it is ready. It never outlives this process, however this process ends. */
export async function startChild(options: ChildOptions): Promise<Child> {
  killWhatIsLeftAtExit();
  const [command, ...args] = boundToParent([options.command, ...options.args]);
  const spawned = spawn(command ?? options.command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ["ignore", "pipe", "pipe"],
    ...options.user,
  });
  const child = await watched(spawned, options);
  return child;
}

function watched(spawned: ChildProcess, options: ChildOptions): Promise<Child> {
  let output = "";
  let ended: string | undefined;
  const gone = new Promise<void>((resolve) => {
    spawned.once("close", (code, signalName) => {
      ended = signalName ?? `exit code ${code}`;
      if (spawned.pid !== undefined) running.delete(spawned.pid);
      resolve();
    });
  });
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: Error) => {
      clearTimeout(timer);
      if (spawned.pid !== undefined && ended === undefined) signalTree(spawned.pid, "SIGKILL");
      reject(new Error(`${options.command} ${options.args.join(" ")}: ${why}. Its output:\n${output}`, { cause }));
    };
    const timer = setTimeout(() => fail("was not ready in time"), options.readyTimeoutMs ?? 60_000);
    spawned.once("error", (error) => fail(error.message, error));
    gone.then(() => fail(`ended before it was ready (${ended})`));

    const { pid } = spawned;
    if (pid === undefined) return;
    running.add(pid);
    const child: Child = {
      pid,
      output: () => output,
      exited: () => ended,
      pause: () => signalTree(pid, "SIGSTOP"),
      resume: () => signalTree(pid, "SIGCONT"),
      kill: async () => {
        if (ended === undefined) signalTree(pid, "SIGKILL");
        await gone;
      },
      stop: async (name) => {
        if (ended !== undefined) return;
        // A frozen process does not see the signal until it is thawed.
        signal(pid, name);
        signalTree(pid, "SIGCONT");
        const impatient = setTimeout(() => signalTree(pid, "SIGKILL"), 15_000);
        await gone;
        clearTimeout(impatient);
      },
    };
    for (const stream of [spawned.stdout, spawned.stderr]) {
      let rest = "";
      stream?.setEncoding("utf8").on("data", (chunk: string) => {
        output += chunk;
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        if (!lines.some((line) => options.isReady(line))) return;
        clearTimeout(timer);
        resolve(child);
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

function killWhatIsLeftAtExit(): void {
  if (watching) return;
  watching = true;
  process.once("exit", () => {
    for (const pid of running) signalTree(pid, "SIGKILL");
  });
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(name, () => {
      for (const pid of running) signalTree(pid, "SIGKILL");
      // Nobody else is listening: end as the signal would have ended us.
      if (process.listenerCount(name) === 0) process.kill(process.pid, name);
    });
  }
}
