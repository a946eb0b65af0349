import { slotOf } from "../../infra/redis-slot.ts";

/**
 * Keys: `holdfast:lock:{p07}:r:<name>` is a lock's record, `...:a:<length>:<name>:<request id>` an attempt or what else
 * is remembered under a request's id, and `...:life` the marker of the partition. What a script touches lies in one
 * partition, and so in one slot of a cluster. One server needs one partition only.
 */
const PARTITIONS = 64;

export interface LockKeys {
  readonly partition: number;
  readonly record: string;
  readonly life: string;
  /** An attempt is this and, after it, the request's id. */
  readonly attempts: string;
}

export function partitionsOf(mode: "single" | "sentinel" | "cluster"): number {
  return mode === "cluster" ? PARTITIONS : 1;
}

export function keysOf(name: string, partitions: number): LockKeys {
  return new KeysOfLock(name, partitions === 1 ? 0 : slotOf(name) % partitions);
}

/** A class: these are made for each call, and most have no use for all of them. */
class KeysOfLock implements LockKeys {
  readonly partition: number;
  readonly #name: string;

  constructor(name: string, partition: number) {
    this.#name = name;
    this.partition = partition;
  }

  get record(): string {
    return `${partitionStart(this.partition)}r:${this.#name}`;
  }

  get life(): string {
    return `${partitionStart(this.partition)}life`;
  }

  get attempts(): string {
    return `${partitionStart(this.partition)}a:${this.#name.length}:${this.#name}:`;
  }
}

/** A pattern for SCAN: the records of locks whose names begin so. */
export function recordPattern(prefix: string): string {
  return `holdfast:lock:{p??}:r:${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
}

export function nameOf(recordKey: string): string {
  return recordKey.slice(RECORD_START);
}

const STARTS = Array.from({ length: PARTITIONS }, (_, at) => `holdfast:lock:{p${String(at).padStart(2, "0")}}:`);

function partitionStart(partition: number): string {
  return STARTS[partition] ?? "";
}

const RECORD_START = `${partitionStart(0)}r:`.length;
