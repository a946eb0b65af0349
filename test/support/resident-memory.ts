import { readFileSync } from "node:fs";

/** The memory a process holds, in MiB. Linux only. */
export function residentMiB(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  if (kib === undefined) throw new Error(`process ${pid} does not say how much memory it holds`);
  return Number(kib) / 1024;
}
