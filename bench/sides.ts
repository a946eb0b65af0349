import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Child, startChild } from "../test/support/child.ts";
import { scratchDirectory } from "../test/support/scratch.ts";

/** A server under load, held to one core so that its rate is a rate per core. */
export interface Side extends AsyncDisposable {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  /** Milliseconds from its start until it served. */
  readonly startMs: number;
  readonly httpPort: number;
}

const root = join(import.meta.dirname, "..");
export const benchYaml = join(import.meta.dirname, "bench.yaml");
export const SERVER_CORE = 0;
/** Where the load, and Redis where there is one, run. */
export const OTHER_CORE = 1;
/** Without taskset the system schedules freely, and figures scatter more. */
const canPin = spawnSync("taskset", ["-c", "0", "true"]).status === 0;

export function pinned(core: number, command: readonly string[]): readonly string[] {
  return canPin ? ["taskset", "-c", String(core), ...command] : command;
}

export function pin(pid: number, core: number): void {
  if (canPin) spawnSync("taskset", ["-a", "-p", "-c", String(core), String(pid)]);
}

export function startBare(): Promise<Side> {
  return start("bare", [process.execPath, "bench/bare-server.ts"], {});
}

export async function startHoldfast(env: Readonly<Record<string, string>>, entry = "src/main.ts"): Promise<Side> {
  const directory = scratchDirectory("bench");
  const side = await start("holdfast", [process.execPath, entry], { HOLDFAST_DATA_DIR: directory.path, ...env });
  return {
    ...side,
    [Symbol.asyncDispose]: async () => {
      await side[Symbol.asyncDispose]();
      directory.remove();
    },
  };
}

async function start(name: string, command: readonly string[], env: Readonly<Record<string, string>>): Promise<Side> {
  const begun = performance.now();
  const [program = "", ...args] = pinned(SERVER_CORE, command);
  const child: Child = await startChild({
    command: program,
    args,
    cwd: root,
    env: { ...process.env, HOLDFAST_GRPC_PORT: "0", HOLDFAST_HTTP_PORT: "0", HOLDFAST_BANNER: "false", ...env },
    isReady: (line) => line.includes('"msg":"serving"'),
  });
  const startMs = performance.now() - begun;
  const ports = /\{.*"msg":"serving".*\}/.exec(child.output())?.[0] ?? "{}";
  const { grpcPort = 0, httpPort = 0 } = JSON.parse(ports) as { grpcPort?: number; httpPort?: number };
  return {
    name,
    port: grpcPort,
    httpPort,
    pid: child.pid,
    startMs,
    [Symbol.asyncDispose]: () => child.stop("SIGTERM"),
  };
}

/** Runs a script of this directory as a process of its own, with an order as JSON, and resolves with the JSON it prints. */
export async function runOn<Result>(core: number, script: string, order: object): Promise<Result> {
  const program = [process.execPath, join(import.meta.dirname, script), JSON.stringify(order)];
  const [command = "", ...args] = pinned(core, program);
  const child = await startChild({ command, args, isReady: (line) => line.startsWith("{"), readyTimeoutMs: 300_000 });
  const result = JSON.parse(/^\{.*\}$/m.exec(child.output())?.[0] ?? "{}") as Result;
  await child.stop("SIGTERM");
  return result;
}

/** Processor time a process has used, in milliseconds. Undefined where the system does not tell. */
export function cpuMs(pid: number): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return undefined;
  }
}

/** Resident memory in MiB. */
export function residentMiB(pid: number): number {
  return statusMiB(pid, "VmRSS");
}

/** The most that it ever was. */
export function peakResidentMiB(pid: number): number {
  return statusMiB(pid, "VmHWM");
}

function statusMiB(pid: number, field: string): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? Number.NaN) / 1024;
}
