import type { HeldSlots } from "./algorithms/concurrency.ts";

interface Part {
  readonly leaseId: string;
  readonly slots: number;
  readonly expiresAt: number;
}

/** Who holds the slots of one limit, in the order in which the leases end: a limit of thousands costs no more than a small one. */
export class LeasedSlots implements HeldSlots {
  readonly #parts: Part[] = [];
  readonly #byLease = new Map<string, Part>();
  #used = 0;

  get used(): number {
    return this.#used;
  }

  get firstEnd(): number | undefined {
    return this.#parts[0]?.expiresAt;
  }

  /** 0 while there is none. */
  get lastEnd(): number {
    return this.#parts.at(-1)?.expiresAt ?? 0;
  }

  get leaseIds(): readonly string[] {
    return [...this.#byLease.keys()];
  }

  freeAt(slots: number): number {
    let left = slots;
    for (const part of this.#parts) {
      left -= part.slots;
      if (left <= 0) return part.expiresAt;
    }
    return Number.POSITIVE_INFINITY;
  }

  put(part: Part): void {
    this.delete(part.leaseId);
    this.#parts.splice(this.#placeOf(part.expiresAt), 0, part);
    this.#byLease.set(part.leaseId, part);
    this.#used += part.slots;
  }

  delete(leaseId: string): void {
    const part = this.#byLease.get(leaseId);
    if (part === undefined) return;
    this.#parts.splice(this.#parts.indexOf(part, this.#placeOf(part.expiresAt)), 1);
    this.#forget(part);
  }

  /** Frees what has ended. */
  expire(now: number): void {
    const over = this.#placeOf(now + 1);
    if (over > 0) for (const part of this.#parts.splice(0, over)) this.#forget(part);
  }

  #forget({ leaseId, slots }: Part): void {
    this.#byLease.delete(leaseId);
    this.#used -= slots;
  }

  /** Of the first that does not end before. */
  #placeOf(time: number): number {
    let low = 0;
    let high = this.#parts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#parts[middle]?.expiresAt ?? 0) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
