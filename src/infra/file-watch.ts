import { type Stats, stat, statSync } from "node:fs";

export interface FileWatchOptions {
  readonly file: string;
  /** In milliseconds since 1970: what has changed after that is a change, also when the watch began later. */
  readonly since: number;
  /** Called when the file is another one than before and has stopped changing. */
  readonly onChange: () => void;
  /** How often to look. Default 1 s. */
  readonly pollMs?: number;
}

/**
 * Watches a file that people edit and programs replace. By polling its name: a file that is replaced as a whole, or through links
 * as Kubernetes does it, is another one then, which watches on an inode miss. What is still being written is left alone until two
 * looks find it the same, so that no half of it is read. Returns the end.
 */
export function watchChanges({ file, since, onChange, pollMs = 1_000 }: FileWatchOptions): () => void {
  const first = statSync(file, { throwIfNoEntry: false });
  let told = first !== undefined && first.ctimeMs > since ? "" : shapeOf(first);
  let last = told;
  let ended = false;

  function look(): void {
    stat(file, (error, stats) => {
      // One that is not there is another one than before. What cannot be looked at now, can be with the next look.
      if (ended || (error !== null && error.code !== "ENOENT")) return;
      const now = shapeOf(error === null ? stats : undefined);
      const settled = now === last;
      last = now;
      if (!settled || now === told) return;
      told = now;
      onChange();
    });
  }

  const timer = setInterval(look, pollMs).unref();
  return () => {
    ended = true;
    clearInterval(timer);
  };
}

function shapeOf(stats: Stats | undefined): string {
  if (stats === undefined) return "none";
  const { dev, ino, size, mtimeMs, ctimeMs } = stats;
  return [dev, ino, size, mtimeMs, ctimeMs].join();
}
