import type { Child } from "../support/child.ts";
import { startChild } from "../support/child.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { serverEntry } from "../support/server-entry.ts";
import { type Ended, holdfast } from "./command.ts";

/** Servers to import into, by what they are made of: settings for `startHoldfast`. */
export const TOPOLOGIES: readonly [string, () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];

/** An import that has ended. */
export interface Imported extends Ended {
  /** What its account counts, by name. */
  readonly counts: Readonly<Record<string, number>>;
}

export function importArgs(server: HoldfastProcess, kind: string, ...args: string[]): string[] {
  return ["import", kind, ...args, "--address", server.grpcAddress];
}

export async function runImport(
  cwd: string,
  server: HoldfastProcess,
  kind: string,
  ...args: string[]
): Promise<Imported> {
  const ended = await holdfast(importArgs(server, kind, ...args), { cwd });
  return { ...ended, counts: countsIn(ended.stdout) };
}

/** What an account counts, by name. */
export function countsIn(account: string): Record<string, number> {
  return Object.fromEntries(
    [...account.matchAll(/^([a-z'(), -]+): (\d+)$/gm)].map(([, name = "", count]) => [name, Number(count)]),
  );
}

/** An import that goes on by itself, once it says that it has begun. */
export function startImport(begun: string, server: HoldfastProcess, kind: string, ...args: string[]): Promise<Child> {
  return startChild({
    command: process.execPath,
    args: [serverEntry(), ...importArgs(server, kind, ...args)],
    isReady: (line) => line.includes(begun),
  });
}
