import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atEnd } from "./at-end.ts";

const made = new Set<string>();

atEnd("directories", () => made.forEach(remove));

export interface ScratchDirectory extends Disposable {
  readonly path: string;
  remove(): void;
}

/** A new directory of its own under the system's temporary one; removed at the latest when this process ends. */
export function scratchDirectory(
  purpose: string,
  owner?: { readonly uid: number; readonly gid: number },
): ScratchDirectory {
  const path = mkdtempSync(join(tmpdir(), `holdfast-${purpose}-`));
  if (owner) chownSync(path, owner.uid, owner.gid);
  made.add(path);
  return { path, remove: () => remove(path), [Symbol.dispose]: () => remove(path) };
}

function remove(path: string): void {
  // A server that was killed a moment ago may still be writing into it.
  rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  made.delete(path);
}
