import { type Stats, statSync, unwatchFile, watchFile } from "node:fs";

export interface FileWatchOptions {
  readonly file: string;
  /** Called when the file is another one than before and has stopped changing. */
  readonly onChange: () => void;
  /** How often to look. Default 1 s. */
  readonly pollMs?: number;
  /** How long it must have stayed as it is. Default 200 ms. */
  readonly settleMs?: number;
}

/**
 * Watches a file that people edit and programs replace. By polling its name: a file that is replaced as a whole, or through links
 * as Kubernetes does it, is another one then, which watches on an inode miss. What is still being written is left alone until it
 * has stopped changing, so that no half of it is read. Returns the end.
 */
export function watchChanges({ file, onChange, pollMs = 1_000, settleMs = 200 }: FileWatchOptions): () => void {
  let timer: NodeJS.Timeout | undefined;

  function settle(before: string): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const now = lookOf(file);
      if (now === before) onChange();
      else settle(now);
    }, settleMs).unref();
  }

  const listener = (now: Stats, before: Stats) => {
    // Also told when it was only read.
    if (shapeOf(now) !== shapeOf(before)) settle(lookOf(file));
  };
  watchFile(file, { interval: pollMs, persistent: false }, listener);
  return () => {
    clearTimeout(timer);
    unwatchFile(file, listener);
  };
}

function lookOf(file: string): string {
  const stats = statSync(file, { throwIfNoEntry: false });
  return stats === undefined ? "" : shapeOf(stats);
}

function shapeOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return [dev, ino, size, mtimeMs, ctimeMs].join();
}
