import { MOST_PARTS, MOST_VALUES, tooManyInMessages, tooManyValues } from "./struct-values.ts";

const TOO_MANY = new Map([
  ["state", { most: MOST_VALUES, failure: tooManyValues }],
  ["patch", { most: MOST_VALUES, failure: tooManyValues }],
  ["messages", { most: MOST_PARTS, failure: tooManyInMessages }],
]);

/** Of those names, however they are written: six characters for one. */
const LONGEST_NAME = 6 * "messages".length;

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN, CLOSE, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/**
 * Refuses the text of a request that holds far too much, before it takes the time to make objects of it. It counts commas and
 * brackets, of which there are never more than values: what is just over the limit is found later. Text that is no JSON is left to
 * those who read it.
 */
export function refuseCrowded(text: string): void {
  if (text.length > MOST_VALUES) new CommaCount(text).refuse();
}

/** Goes through a JSON text by its marks alone. */
class CommaCount {
  readonly #text: string;
  #at = 0;
  /** How many objects and lists are open. */
  #level = 0;
  /** The text that was read last at the first level: the name of a member, once a colon follows. */
  #last = "";
  #member = "";
  #commas = 0;
  #brackets = 0;

  constructor(text: string) {
    this.#text = text;
  }

  refuse(): void {
    const { length } = this.#text;
    while (this.#at < length) {
      switch (this.#text.charCodeAt(this.#at++)) {
        case QUOTE:
          this.#skipText();
          break;
        case COLON:
          if (this.#level === 1) this.#begin(this.#last);
          break;
        case COMMA:
          if (this.#level > 1 && ++this.#commas > MOST_VALUES) this.#refuse(this.#commas);
          break;
        case OPEN:
        case OPEN_LIST:
          if (this.#level++ > 0 && ++this.#brackets > MOST_VALUES) this.#refuse(this.#brackets);
          break;
        case CLOSE:
        case CLOSE_LIST:
          this.#level--;
      }
    }
  }

  #begin(member: string): void {
    this.#member = member;
    this.#commas = 0;
    this.#brackets = 0;
  }

  /** From behind its first quote. Most of a large request is texts: looking for their ends is all there is to do with them. */
  #skipText(): void {
    const text = this.#text;
    const start = this.#at;
    let end = text.indexOf('"', start);
    while (end >= 0 && isEscaped(text, start, end)) end = text.indexOf('"', end + 1);
    if (end < 0) end = text.length;
    if (this.#level === 1) this.#last = nameOf(text.slice(start, end));
    this.#at = end + 1;
  }

  #refuse(count: number): void {
    const limit = TOO_MANY.get(this.#member);
    // The object itself has a bracket, too.
    if (limit !== undefined && count > limit.most + 1) throw limit.failure(this.#member);
  }
}

/** JSON has many ways to write a name. One that is none is left to those who read it. */
function nameOf(written: string): string {
  if (written.length > LONGEST_NAME || !written.includes("\\")) return written;
  try {
    return String(JSON.parse(`"${written}"`));
  } catch {
    return written;
  }
}

/** Whether an odd number of backslashes stands before it. */
function isEscaped(text: string, start: number, at: number): boolean {
  let first = at;
  while (first > start && text.charCodeAt(first - 1) === BACKSLASH) first--;
  return (at - first) % 2 === 1;
}
