import type { Change } from "./change.ts";
import type { Contents } from "./contents.ts";

/** What one of them takes in memory besides its bytes. */
const BYTES_EACH = 256;

interface Shared<T> {
  readonly value: Promise<T>;
  bytes: number;
}

/**
 * A thousand watchers of one change want the same: it is read once, and kept while more may come for it, as far as there is room. It
 * cannot be out of date, since a version has one state and one set of messages for ever.
 */
export function shareContents(contents: Contents, mostBytes: number): Contents {
  const states = new SharedReads(
    mostBytes / 2,
    (change) => contents.state(change),
    (state) => state?.length ?? 0,
  );
  const messages = new SharedReads(
    mostBytes / 2,
    (change) => contents.messages(change),
    (some) => some.reduce((sum, { body }) => sum + body.length + BYTES_EACH, 0),
  );
  return { state: (change) => states.get(change), messages: (change) => messages.get(change) };
}

class SharedReads<T> {
  readonly #mostBytes: number;
  readonly #read: (change: Change) => Promise<T>;
  readonly #sizeOf: (value: T) => number;
  /** By the place of the change, the one that was asked for last at the end. */
  readonly #held = new Map<number, Shared<T>>();
  #bytes = 0;

  constructor(mostBytes: number, read: (change: Change) => Promise<T>, sizeOf: (value: T) => number) {
    this.#mostBytes = mostBytes;
    this.#read = read;
    this.#sizeOf = sizeOf;
  }

  get(change: Change): Promise<T> {
    const found = this.#held.get(change.seq);
    const shared = found ?? this.#start(change);
    this.#held.delete(change.seq);
    this.#held.set(change.seq, shared);
    return shared.value;
  }

  #start(change: Change): Shared<T> {
    const shared = { value: this.#read(change), bytes: BYTES_EACH };
    this.#bytes += shared.bytes;
    shared.value.then(
      (value) => this.#weigh(change.seq, shared, this.#sizeOf(value)),
      // Those who wait for it are told; the next one tries again.
      () => this.#drop(change.seq, shared),
    );
    return shared;
  }

  #weigh(seq: number, shared: Shared<T>, bytes: number): void {
    if (this.#held.get(seq) !== shared) return;
    shared.bytes += bytes;
    this.#bytes += bytes;
    for (const [oldest, one] of this.#held) {
      if (this.#bytes <= this.#mostBytes) break;
      this.#drop(oldest, one);
    }
  }

  #drop(seq: number, shared: Shared<T>): void {
    if (this.#held.get(seq) !== shared) return;
    this.#held.delete(seq);
    this.#bytes -= shared.bytes;
  }
}
