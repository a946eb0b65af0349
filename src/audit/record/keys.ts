/**
 * What records are searched by, as numbers: 53 bits of a hash. Different texts may share one, so whoever finds a record by its key
 * compares the text itself. Stored, so this must never change.
 */
export function keyOf(...texts: readonly string[]): number {
  const hash = new TextHash();
  for (const text of texts) hash.text(text);
  return hash.key();
}

/** A hash of texts that need not be strings. */
export class TextHash {
  #high = 0x811c9dc5;
  #low = 0x9e3779b1;

  text(text: string): void {
    let high = this.#high;
    let low = this.#low;
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      high = Math.imul(high ^ unit, 0x01000193);
      low = Math.imul(low ^ unit, 0x85ebca6b);
      low ^= low >>> 15;
    }
    this.#end(high, low);
  }

  /** The same for a text in UTF-8. */
  bytes(bytes: Buffer, start: number, end: number): void {
    let high = this.#high;
    let low = this.#low;
    for (let at = start; at < end; at++) {
      const unit = bytes[at] ?? 0;
      if (unit >= 0x80) {
        this.text(bytes.toString("utf8", start, end));
        return;
      }
      high = Math.imul(high ^ unit, 0x01000193);
      low = Math.imul(low ^ unit, 0x85ebca6b);
      low ^= low >>> 15;
    }
    this.#end(high, low);
  }

  /** Where one text ends: ("ab", "c") is not ("a", "bc"). */
  #end(high: number, low: number): void {
    this.#high = Math.imul(high ^ 0x1_0000, 0x01000193);
    this.#low = Math.imul(low ^ 0x1_0000, 0x85ebca6b);
  }

  key(): number {
    const high = this.#high;
    const low = Math.imul(this.#low ^ (high >>> 16), 0xc2b2ae35);
    return ((high ^ (low >>> 13)) >>> 0) * 0x20_0000 + ((low ^ (high >>> 7)) & 0x1f_ffff);
  }
}

export interface SearchKeys {
  readonly actor: number;
  readonly action: number;
  /** Undefined, like the ones below, when the record does not state it. */
  readonly resource: number | undefined;
  readonly resourceType: number | undefined;
  readonly trace: number | undefined;
  readonly service: number | undefined;
}
