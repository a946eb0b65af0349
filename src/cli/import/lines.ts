import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { createGunzip } from "node:zlib";

export interface Line {
  /** From 1. */
  readonly number: number;
  /** Without its end. Undefined: it is too long. */
  readonly bytes: Buffer | undefined;
  /** Whether it has an end: one without it may be torn. */
  readonly ended: boolean;
}

/** No record that a server takes is nearly as long. */
export const MOST_BYTES = 4 * 1024 * 1024;

const LF = 10;
const CR = 13;

/** What a file holds, piece by piece. One whose name ends in .gz is unpacked on the way. */
export function contentsOf(path: string): Readable {
  const file = createReadStream(path);
  if (!path.endsWith(".gz")) return file;
  const unpacked = createGunzip();
  file.on("error", (error) => unpacked.destroy(error));
  unpacked.on("close", () => file.destroy());
  return file.pipe(unpacked);
}

/** The lines of a file, one after the other, however long it is. */
export function linesOf(path: string, mostBytes = MOST_BYTES): AsyncGenerator<Line> {
  return linesIn(contentsOf(path), mostBytes);
}

/** The lines of what comes piece by piece, as bytes. It is closed when nobody wants any more of them. */
export async function* linesIn(pieces: AsyncIterable<unknown>, mostBytes: number): AsyncGenerator<Line> {
  let parts: Buffer[] = [];
  let length = 0;
  let number = 1;

  function add(part: Buffer): void {
    length += part.length;
    if (length <= mostBytes) parts.push(part);
    else parts = [];
  }

  function take(ended: boolean): Line {
    const whole = length > mostBytes ? undefined : Buffer.concat(parts);
    const bytes = whole?.at(-1) === CR ? whole.subarray(0, -1) : whole;
    parts = [];
    length = 0;
    return { number: number++, bytes, ended };
  }

  for await (const piece of pieces) {
    if (!(piece instanceof Buffer)) throw new TypeError("a file is read as bytes");
    let start = 0;
    for (let end = piece.indexOf(LF); end >= 0; end = piece.indexOf(LF, start)) {
      add(piece.subarray(start, end));
      yield take(true);
      start = end + 1;
    }
    if (start < piece.length) add(piece.subarray(start));
  }
  if (length > 0) yield take(false);
}
