import { type Change, type Scope, toldKind } from "./change.ts";

export interface WindowLimits {
  readonly changes: number;
  readonly bytes: number;
}

/** More than the fields of a change take beside its summary. */
const BYTES_EACH = 512;

/** The latest changes, without gaps, for all who watch: they are read once. */
export class Window {
  readonly #limits: WindowLimits;
  readonly #changes = new Map<number, Change>();
  #first: number;
  #bytes = 0;
  /** The place of the latest change, whether or not it is in here. */
  position: number;

  constructor(position: number, limits: WindowLimits) {
    this.position = position;
    this.#first = position + 1;
    this.#limits = limits;
  }

  /** Everything after this place is in here. */
  get start(): number {
    return this.#first - 1;
  }

  get(seq: number): Change | undefined {
    return this.#changes.get(seq);
  }

  /** The change that follows the latest. The oldest make room for it. */
  add(change: Change): void {
    this.#changes.set(change.seq, change);
    this.#bytes += sizeOf(change);
    this.position = change.seq;
    const { changes: most, bytes } = this.#limits;
    while (this.#changes.size > most || this.#bytes > bytes) this.#dropFirst();
  }

  #dropFirst(): void {
    const first = this.#changes.get(this.#first);
    if (first !== undefined) this.#bytes -= sizeOf(first);
    this.#changes.delete(this.#first++);
  }

  /** The place of the first change in here that concerns the scope, after a place not before the start. */
  find(scope: Scope, after: number): number | undefined {
    for (let seq = after + 1; seq <= this.position; seq++) {
      const change = this.#changes.get(seq);
      if (change !== undefined && concerns(scope, change)) return seq;
    }
    return undefined;
  }
}

export function concerns(scope: Scope, change: Change): boolean {
  if (change.collection !== scope.collection) return false;
  if (scope.id !== undefined && scope.id !== change.id) return false;
  return toldKind(scope, change) !== undefined;
}

function sizeOf({ summary }: Change): number {
  return summary.length + BYTES_EACH;
}
