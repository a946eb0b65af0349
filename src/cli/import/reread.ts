/** Pieces of a stream that can be looked into before they are read: of a pipe, nothing comes twice. */
export interface Reread {
  /** From the beginning. What was seen is kept in memory, and comes again in `all`. */
  look(): AsyncGenerator<Buffer>;
  /** All of it, once. */
  all(): AsyncGenerator<Buffer>;
}

export function createReread(stream: AsyncIterable<unknown>): Reread {
  const pieces = stream[Symbol.asyncIterator]();
  const seen: Buffer[] = [];

  async function next(): Promise<Buffer | undefined> {
    const { done, value } = await pieces.next();
    if (done) return undefined;
    if (!(value instanceof Buffer)) throw new TypeError("a file is read as bytes");
    return value;
  }

  return {
    async *look() {
      yield* seen;
      for (let piece = await next(); piece !== undefined; piece = await next()) {
        seen.push(piece);
        yield piece;
      }
    },
    async *all() {
      try {
        for (let piece = seen.shift(); piece !== undefined; piece = seen.shift()) yield piece;
        for (let piece = await next(); piece !== undefined; piece = await next()) yield piece;
      } finally {
        await pieces.return?.();
      }
    },
  };
}
