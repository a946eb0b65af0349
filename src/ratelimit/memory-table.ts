interface Entry<Value> {
  readonly value: Value;
  readonly until: number;
  readonly bytes: number;
}

/** Entries that are dropped as new ones come. */
const SWEPT_PER_ENTRY = 3;
/** What an entry takes beside its name and value, about. */
const ENTRY_BYTES = 150;

export interface TableBounds<Value> {
  readonly entries: number;
  /** Of names and values, about: names come from callers, and may be long. */
  readonly bytes: number;
  /** What a value takes. Default: nothing worth counting. */
  readonly bytesOf?: (value: Value) => number;
  /** Is told what is dropped for want of room. */
  readonly onDropped?: (value: Value) => void;
}

/**
 * A map whose entries end, bounded in size. Each entry that comes looks at a few others and takes out those that have ended, so
 * that no timer is needed and nothing is ever scanned as a whole. When it is full, what was set longest ago goes.
 */
export class MemoryTable<Value> {
  readonly #entries = new Map<string, Entry<Value>>();
  readonly #bounds: TableBounds<Value>;
  #bytes = 0;
  #cursor: IterableIterator<[string, Entry<Value>]> | undefined;

  constructor(bounds: TableBounds<Value>) {
    this.#bounds = bounds;
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
    this.delete(name);
    const bytes = ENTRY_BYTES + 2 * name.length + (this.#bounds.bytesOf?.(value) ?? 0);
    this.#entries.set(name, { value, until, bytes });
    this.#bytes += bytes;
    this.#sweep(now);
    if (this.#isFull()) this.#makeRoom();
  }

  delete(name: string): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    this.#bytes -= entry.bytes;
    this.#entries.delete(name);
  }

  #isFull(): boolean {
    return this.#entries.size > this.#bounds.entries || this.#bytes > this.#bounds.bytes;
  }

  #makeRoom(): void {
    for (const [name, { value }] of this.#entries) {
      this.delete(name);
      this.#bounds.onDropped?.(value);
      if (!this.#isFull()) return;
    }
  }

  #sweep(now: number): void {
    for (let looked = 0; looked < SWEPT_PER_ENTRY; looked++) {
      this.#cursor ??= this.#entries.entries();
      const { done, value } = this.#cursor.next();
      if (done) {
        this.#cursor = undefined;
        return;
      }
      if (value[1].until <= now) this.delete(value[0]);
    }
  }
}
