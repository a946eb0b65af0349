interface Entry<Value> {
  readonly value: Value;
  readonly until: number;
}

/** Entries that are dropped as new ones come. */
const SWEPT_PER_ENTRY = 3;

/**
 * A map whose entries end, bounded in size. Each entry that comes looks at a few others and takes out those that have ended, so
 * that no timer is needed and nothing is ever scanned as a whole. When it is full, what was set longest ago goes.
 */
export class MemoryTable<Value> {
  readonly #entries = new Map<string, Entry<Value>>();
  readonly #most: number;
  #cursor: IterableIterator<[string, Entry<Value>]> | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(name: string, now: number): Value | undefined {
    const entry = this.#entries.get(name);
    return entry === undefined || entry.until <= now ? undefined : entry.value;
  }

  set(name: string, value: Value, until: number, now: number): void {
    // Taken out first, so that it stands behind what was set before.
    this.#entries.delete(name);
    this.#entries.set(name, { value, until });
    this.#sweep(now);
    if (this.#entries.size <= this.#most) return;
    const [oldest] = this.#entries.keys();
    if (oldest !== undefined) this.#entries.delete(oldest);
  }

  delete(name: string): void {
    this.#entries.delete(name);
  }

  #sweep(now: number): void {
    for (let looked = 0; looked < SWEPT_PER_ENTRY; looked++) {
      this.#cursor ??= this.#entries.entries();
      const { done, value } = this.#cursor.next();
      if (done) {
        this.#cursor = undefined;
        return;
      }
      if (value[1].until <= now) this.#entries.delete(value[0]);
    }
  }
}
