import { readFileSync } from "node:fs";

/** Counts the frames of the write-ahead log that end a transaction. */
export function commitsInLog(path: string): number {
  const log = readFileSync(`${path}-wal`);
  const frame = 24 + 4096;
  let commits = 0;
  for (let at = 32; at + frame <= log.length; at += frame) {
    if (log.readUInt32BE(at + 4) !== 0) commits += 1;
  }
  return commits;
}
