import { join } from "node:path";
import { type Child, startChild } from "./child.ts";
import { freePort, onFreePort } from "./free-port.ts";
import { scratchDirectory } from "./scratch.ts";
import { serverEntry } from "./server-entry.ts";

const repository = join(import.meta.dirname, "../..");

export interface HoldfastProcess extends AsyncDisposable {
  /** "127.0.0.1:port" of the gRPC plane. */
  readonly grpcAddress: string;
  /** "http://127.0.0.1:port" of the HTTP plane. */
  readonly httpUrl: string;
  /** Changes with `restart`. */
  readonly pid: number;
  /** The settings it runs with, its ports and data directory among them. */
  readonly env: Readonly<Record<string, string>>;
  /** What it has written so far, since its last start. */
  output(): string;
  /** Its exit code or signal; undefined while it runs. */
  exited(): string | undefined;
  pause(): void;
  resume(): void;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
  /** SIGTERM, and waits until it has ended. Its data directory stays until this process ends, for a look or a `restart`. */
  stop(): Promise<void>;
  /** Starts it again on the same ports and data, ending it first if it still runs. */
  restart(): Promise<void>;
}

/**
 * Runs the server as a process of its own, on free ports and a data directory of its own, and resolves when it serves. Settings
 * of this process's environment do not reach it: only `env` does. `root` is where the code is when it is not this repository's, but
 * a copy with planted bugs.
 */
export async function startHoldfast(
  env: Readonly<Record<string, string>> = {},
  root?: string,
): Promise<HoldfastProcess> {
  const directory = scratchDirectory("data");
  const given = { HOLDFAST_DATA_DIR: directory.path, ...env };
  // Not port 0: the system's choice could not be kept over a restart.
  const first = await onFreePort(async (port) => {
    const ports = { HOLDFAST_GRPC_PORT: String(port), HOLDFAST_HTTP_PORT: String(await freePort()) };
    return runHoldfast({ ...ports, ...given }, root);
  }).catch((error: unknown) => {
    directory.remove();
    throw error;
  });
  const { grpcPort, httpPort } = first;
  let { child } = first;
  const settings = { ...given, HOLDFAST_GRPC_PORT: String(grpcPort), HOLDFAST_HTTP_PORT: String(httpPort) };
  const stop = () => child.stop("SIGTERM");
  return {
    grpcAddress: `127.0.0.1:${grpcPort}`,
    httpUrl: `http://127.0.0.1:${httpPort}`,
    get pid() {
      return child.pid;
    },
    env: settings,
    output: () => child.output(),
    exited: () => child.exited(),
    pause: () => child.pause(),
    resume: () => child.resume(),
    kill: () => child.kill(),
    stop,
    restart: async () => {
      await stop();
      ({ child } = await runHoldfast(settings, root));
    },
    [Symbol.asyncDispose]: async () => {
      await stop();
      directory.remove();
    },
  };
}

function inherited(): NodeJS.ProcessEnv {
  const { PATH, HOME, TZ, LANG, NODE_COMPILE_CACHE } = process.env;
  return { PATH, HOME, TZ, LANG, NODE_COMPILE_CACHE };
}

interface Serving {
  readonly grpcPort: number;
  readonly httpPort: number;
}

async function runHoldfast(env: Readonly<Record<string, string>>, root?: string): Promise<Serving & { child: Child }> {
  let serving: Serving | undefined;
  const child = await startChild({
    command: process.execPath,
    args: [root === undefined ? serverEntry() : join(root, "src/main.ts")],
    cwd: root ?? repository,
    env: { ...inherited(), ...env },
    isReady: (line) => {
      serving ??= readServing(line);
      return serving !== undefined;
    },
  });
  if (!serving) throw new Error("The server was ready without having said on which ports.");
  return { child, ...serving };
}

/** Reads the log line by which the server says that it serves; undefined for every other line. */
function readServing(line: string): Serving | undefined {
  if (!line.startsWith("{")) return undefined;
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof entry !== "object" || entry === null || !("msg" in entry) || entry.msg !== "serving") return undefined;
  if (!("grpcPort" in entry) || !("httpPort" in entry)) return undefined;
  const { grpcPort, httpPort } = entry;
  return typeof grpcPort === "number" && typeof httpPort === "number" ? { grpcPort, httpPort } : undefined;
}
