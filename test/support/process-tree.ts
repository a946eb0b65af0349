import { execFileSync } from "node:child_process";

/** Sends a signal to a process; one that is already gone is fine. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

/**
 * Sends a signal to a process and to all that it started. The parent comes first, so that it cannot start another one behind our
 * back: Postgres answers each connection from a child of its own, and those children are leaders of their own sessions, so a
 * process group does not reach them.
 */
export function signalTree(pid: number, name: NodeJS.Signals): void {
  const before = descendants(pid);
  signal(pid, name);
  for (const child of new Set([...before, ...descendants(pid)])) signal(child, name);
}

function descendants(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const line of execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" }).split("\n")) {
    const [pid, parent] = line.trim().split(/\s+/).map(Number);
    if (!pid || !parent) continue;
    children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const found: number[] = [];
  const pending = [root];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const own = children.get(next) ?? [];
    found.push(...own);
    pending.push(...own);
  }
  return found;
}

function isGone(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ESRCH";
}
