import { execFile } from "node:child_process";
import { join } from "node:path";
import { serverEntry } from "../support/server-entry.ts";

const root = join(import.meta.dirname, "../..");

export interface Ended {
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `holdfast` with arguments and waits for its end. Settings of this process's environment do not reach it. */
export function holdfast(
  args: readonly string[],
  { cwd, env = {} }: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
): Promise<Ended> {
  return runCommand(process.execPath, [serverEntry(), ...args], { cwd, env });
}

/** Runs a program to its end; fails only when it cannot be run at all. */
export function runCommand(
  command: string,
  args: readonly string[],
  { cwd = root, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Ended> {
  const { PATH, HOME, NODE_COMPILE_CACHE } = process.env;
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd, env: { PATH, HOME, NODE_COMPILE_CACHE, ...env } }, (error, stdout, stderr) => {
      if (error && typeof error.code === "string") reject(error);
      else
        resolve({ code: error === null ? 0 : typeof error.code === "number" ? error.code : undefined, stdout, stderr });
    });
  });
}
