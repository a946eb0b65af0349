import { stepTo } from "../../infra/json-path.ts";

/** Where the scan of a struct is: the keys and places that lead there, as bytes until somebody asks. */
export class StructPath {
  readonly #bytes: Buffer;
  /** Two numbers a level: from where to where the key goes; or a place in a list, and -1. */
  readonly #steps: number[] = [];

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Levels count from 1. */
  atKey(level: number, start: number, end: number): void {
    this.#steps[2 * level - 2] = start;
    this.#steps[2 * level - 1] = end;
  }

  atPlace(level: number, place: number): void {
    this.#steps[2 * level - 2] = place;
    this.#steps[2 * level - 1] = -1;
  }

  /** Such as `.context.items[3]["a key"]`, of this many levels. */
  text(levels: number): string {
    let text = "";
    for (let level = 1; level <= levels; level++) {
      const start = this.#steps[2 * level - 2] ?? 0;
      const end = this.#steps[2 * level - 1] ?? 0;
      text += end === -1 ? `[${start}]` : stepTo(this.#bytes.toString("utf8", start, end));
    }
    return text;
  }
}
