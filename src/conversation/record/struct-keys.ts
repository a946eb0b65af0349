import { UNUSUAL } from "../../infra/wire-reader.ts";

/** Up to here comparing with each is quicker than a set. */
const FEW = 48;

/** The keys of the objects that a scan is inside of, the innermost last: none may come twice in one object. */
export class StructKeys {
  readonly #bytes: Buffer;
  /** Three numbers a key: a hash of it, from where and to where it goes. */
  readonly #keys: number[] = [];
  #used = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** An object begins. Returns what ends it, and tells its keys from others'. */
  begin(): number {
    return this.#used;
  }

  end(object: number): void {
    this.#used = object;
  }

  /**
   * Throws UNUSUAL when the object has the key already. `many` is what it returned for the key before, undefined for the first: an
   * object of many keys has them in a set.
   */
  add(
    object: number,
    many: Set<string> | undefined,
    hash: number,
    start: number,
    end: number,
  ): Set<string> | undefined {
    if (many !== undefined) return this.#addTo(many, start, end);
    const keys = this.#keys;
    for (let i = object; i < this.#used; i += 3) {
      if (keys[i] === hash && this.#isSame(keys[i + 1] ?? 0, keys[i + 2] ?? 0, start, end)) throw UNUSUAL;
    }
    keys[this.#used++] = hash;
    keys[this.#used++] = start;
    keys[this.#used++] = end;
    return this.#used - object < 3 * FEW ? undefined : this.#allOf(object);
  }

  #isSame(start: number, end: number, otherStart: number, otherEnd: number): boolean {
    return this.#bytes.compare(this.#bytes, start, end, otherStart, otherEnd) === 0;
  }

  #allOf(object: number): Set<string> {
    const all = new Set<string>();
    for (let i = object; i < this.#used; i += 3) this.#addTo(all, this.#keys[i + 1] ?? 0, this.#keys[i + 2] ?? 0);
    return all;
  }

  #addTo(names: Set<string>, start: number, end: number): Set<string> {
    const { size } = names;
    // Every byte becomes a character of its own, so that other bytes are another name.
    if (names.add(this.#bytes.toString("latin1", start, end)).size === size) throw UNUSUAL;
    return names;
  }
}
