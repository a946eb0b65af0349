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
export async function* linesOf(path: string, mostBytes = MOST_BYTES): AsyncGenerator<Line> {
  const stream = contentsOf(path);
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

  try {
    for await (const chunk of stream) {
      if (!(chunk instanceof Buffer)) throw new TypeError("a file is read as bytes");
      let start = 0;
      for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
        add(chunk.subarray(start, end));
        yield take(true);
        start = end + 1;
      }
      if (start < chunk.length) add(chunk.subarray(start));
    }
    if (length > 0) yield take(false);
  } finally {
    stream.destroy();
  }
}
