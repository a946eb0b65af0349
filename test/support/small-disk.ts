import { execFileSync } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atEnd } from "./at-end.ts";

const mounted = new Set<string>();

atEnd("directories", () => mounted.forEach(unmount));

/** A disk that can be filled: a file system in memory, with room for so much. */
export interface SmallDisk extends Disposable {
  readonly path: string;
  /** Makes room for more, or for less, without touching what is there. */
  resize(mebibytes: number): void;
}

/** Whether this process may make one: only root may, and not in every container. */
export function mayMount(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  try {
    mountSmallDisk(1)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}

export function mountSmallDisk(mebibytes: number): SmallDisk {
  const path = mkdtempSync(join(tmpdir(), "holdfast-small-disk-"));
  try {
    mount("-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", path);
  } catch (error) {
    rmdirSync(path);
    throw error;
  }
  mounted.add(path);
  return {
    path,
    resize: (larger) => mount("-o", `remount,size=${larger}m`, path),
    [Symbol.dispose]: () => unmount(path),
  };
}

function mount(...args: string[]): void {
  execFileSync("mount", args, { stdio: "pipe" });
}

function unmount(path: string): void {
  if (!mounted.delete(path)) return;
  // Lazily: a server that was killed a moment ago may still have a file open.
  execFileSync("umount", ["-l", path], { stdio: "pipe" });
  rmdirSync(path);
}
