import { Ranges } from "../../src/audit/journal/held-ranges.ts";
import type { Journal } from "../../src/audit/journal/journal.ts";
import type { Queue } from "../../src/audit/queue/queue.ts";
import { idOf, type RecordId, type Sealed } from "../../src/audit/record/record.ts";
import { UnavailableError } from "../../src/infra/failure.ts";

/** Records that a test puts somewhere, for rules that only ask what is there. */
export class Shelf {
  readonly #leaves = new Map<string, Uint8Array>();
  readonly #ranges = new Map<string, Ranges>();
  /** While it is set, whoever asks is told that it is away. */
  away = false;
  /** Called before each answer. */
  onAsked: () => Promise<void> = async () => {};

  put(...records: readonly Sealed[]): void {
    for (const record of records) {
      this.#leaves.set(idOf(record), record.leaf);
      this.rangesOf(record.producer).add(record.sequence, record.sequence);
    }
  }

  take(id: RecordId): void {
    this.#leaves.delete(idOf(id));
    this.rangesOf(id.producer).remove(id.sequence, id.sequence);
  }

  rangesOf(producer: string): Ranges {
    const ranges = this.#ranges.get(producer) ?? new Ranges();
    this.#ranges.set(producer, ranges);
    return ranges;
  }

  get producers(): readonly string[] {
    return [...this.#ranges.keys()];
  }

  async find(id: RecordId): Promise<Uint8Array | undefined> {
    await this.asked();
    return this.#leaves.get(idOf(id));
  }

  async asked(): Promise<void> {
    await this.onAsked();
    if (this.away) throw new UnavailableError("REDIS_UNAVAILABLE", "the shelf is away");
  }
}

const unused = () => Promise.reject(new Error("a reader has no use for it"));

/** A queue that holds what is on the shelf. */
export function shelfQueue(shelf: Shelf): Queue {
  return {
    traffic: { appended: 0, awaited: false },
    append: unused,
    raise: unused,
    find: async (ids) => Promise.all(ids.map((id) => shelf.find(id))),
    async sequences(producer) {
      await shelf.asked();
      return [...shelf.rangesOf(producer)].flatMap(({ first, last }) =>
        Array.from({ length: last - first + 1 }, (_, at) => first + at),
      );
    },
    lastSequence: unused,
    drained: unused,
    condition: unused,
  };
}

/** A journal that holds what is on the shelves, a segment each; `damaged` are the quarantined. */
export function shelfJournal(shelves: readonly Shelf[], damaged: Ranges, producer: string): Journal {
  return {
    append: unused,
    segments: () =>
      shelves.map((shelf, at) => ({
        name: String(at),
        createdMs: 0,
        records: 0,
        bytes: 0,
        sealed: true,
        held: new Map(shelf.producers.map((one) => [one, [...shelf.rangesOf(one)]])),
      })),
    rotate: unused,
    async *read() {},
    release: unused,
    async find(id) {
      for (const shelf of shelves) {
        const leaf = await shelf.find(id);
        if (leaf !== undefined) return leaf;
      }
      return undefined;
    },
    isQuarantined: (id) => id.producer === producer && damaged.has(id.sequence),
    quarantined: (one) => (one === producer ? [...damaged] : []),
    condition: () => ({ segments: 0, records: 0, bytes: 0, quarantined: 0, lastError: undefined }),
    close: unused,
  };
}
