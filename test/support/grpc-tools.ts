import { execFile } from "node:child_process";
import { join } from "node:path";
import { lookUp, searchPath } from "./binaries.ts";

// Where scripts/ensure-grpc-tools.sh puts them.
const built = join(import.meta.dirname, "../../.cache/bin");

export interface ToolResult {
  readonly stdout: string;
  readonly stderr: string;
  /** The exit code; undefined when a signal ended it. */
  readonly code: number | undefined;
}

/** Where the real grpcurl is; undefined when it is not on this machine: skip what needs it, visibly, by `it.skipIf`. */
export function grpcurlPath(): string | undefined {
  return lookUp("grpcurl", [built, ...searchPath()]);
}

/** Where the real grpc_health_probe is; undefined when it is not on this machine. */
export function healthProbePath(): string | undefined {
  return lookUp("grpc-health-probe", [built]) ?? lookUp("grpc_health_probe", searchPath());
}

export function grpcurl(args: readonly string[]): Promise<ToolResult> {
  return runTool("grpcurl", grpcurlPath(), args);
}

export function healthProbe(args: readonly string[]): Promise<ToolResult> {
  return runTool("grpc-health-probe", healthProbePath(), args);
}

/** A tool that fails is an answer, not an error: its exit code is what a test asks about. */
function runTool(name: string, path: string | undefined, args: readonly string[]): Promise<ToolResult> {
  if (!path) return Promise.reject(new Error(`${name} is not here. Run: bash scripts/ensure-grpc-tools.sh`));
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, { timeout: 60_000 }, (error, stdout, stderr) => {
      if (error && typeof error.code === "string") reject(error);
      else resolve({ stdout, stderr, code: child.exitCode ?? undefined });
    });
  });
}
