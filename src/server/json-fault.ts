import type { FieldViolation } from "../infra/failure.ts";
import { stepTo } from "../infra/json-path.ts";

/**
 * Where a text ceases to be JSON, and how: JSON.parse names no place that helps in a large one. Undefined when it is JSON. An empty
 * path: it is the text itself. In a text of very many values it is not looked for to the end. `namesTwice`: whether an object may
 * have a name twice, which JSON leaves open.
 */
export function jsonFault(text: string, { namesTwice = true } = {}): FieldViolation | undefined {
  return new JsonWalk(text, namesTwice).fault();
}

/** An object or a list that is open: the member or the place that is being read. */
interface Open {
  readonly isList: boolean;
  key: string;
  place: number;
  /** Where none may come twice. */
  readonly names: Set<string> | undefined;
}

const SPACE = /[ \t\n\r]*/y;
const HEX4 = /[0-9a-fA-F]{4}/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /[-+]?[A-Za-z_$][\w$]*/y;
const WORDS: ReadonlySet<string> = new Set(["true", "false", "null"]);
const NO_NUMBER = /^[-+]?(?:NaN|Infinity|inf)$/i;
/** What may follow a backslash, besides u and four digits. */
const SIMPLE = '"\\/bfnrt';
const [QUOTE, BACKSLASH, SPACE_CODE] = [0x22, 0x5c, 0x20];
const MOST_STEPS = 100;
/** A few tens of milliseconds. */
const MOST_READ = 100_000;

/** Without recursion: nobody knows how deep a text goes that is not JSON. */
class JsonWalk {
  readonly #text: string;
  readonly #namesTwice: boolean;
  readonly #open: Open[] = [];
  #at = 0;

  constructor(text: string, namesTwice: boolean) {
    this.#text = text;
    this.#namesTwice = namesTwice;
  }

  fault(): FieldViolation | undefined {
    for (let read = 0; read < MOST_READ; read++) {
      const description = this.#value() ?? this.#ended();
      if (description === undefined) return undefined;
      if (description !== MORE) return { field: this.#path(), description };
    }
    return undefined;
  }

  /** Reads a value, or the beginning of an object or a list up to its first value. */
  #value(): string | undefined {
    switch (this.#next()) {
      case "{":
        this.#at++;
        this.#open.push({ isList: false, key: "", place: 0, names: this.#namesTwice ? undefined : new Set() });
        return this.#next() === "}" ? undefined : (this.#name() ?? MORE);
      case "[":
        this.#at++;
        this.#open.push({ isList: true, key: "", place: 0, names: undefined });
        return this.#next() === "]" ? undefined : MORE;
      case '"':
        return this.#skipText();
      case "":
        return CUT;
    }
    if (this.#taken(NUMBER) !== undefined) return undefined;
    const word = this.#taken(WORD);
    if (word === undefined) return this.#unexpected("a value");
    if (NO_NUMBER.test(word)) return `is ${word}, which is no number in JSON: leave it out, or send null or a text`;
    return WORDS.has(word) ? undefined : `is ${word}, which is not JSON: a text stands in quotes`;
  }

  /** What follows a value. Undefined at the end of the text. */
  #ended(): string | undefined {
    for (;;) {
      const open = this.#open.at(-1);
      const next = this.#next();
      if (open === undefined) return next === "" ? undefined : this.#unexpected("the end");
      if (next === "") return CUT;
      this.#at++;
      if (next === ",") {
        open.place++;
        return open.isList ? MORE : (this.#name() ?? MORE);
      }
      if (next !== (open.isList ? "]" : "}")) {
        this.#at--;
        return this.#unexpected(open.isList ? "a comma or ]" : "a comma or }");
      }
      this.#open.pop();
    }
  }

  /** Of a member, with its colon. */
  #name(): string | undefined {
    const open = this.#open.at(-1);
    if (open === undefined) return undefined;
    open.key = "";
    if (this.#next() === "") return CUT;
    if (this.#next() !== '"') return this.#unexpected("a name in quotes");
    const start = this.#at;
    const fault = this.#skipText();
    if (fault !== undefined) return fault;
    open.key = String(JSON.parse(this.#text.slice(start, this.#at)));
    if (open.names?.has(open.key) === true) return "is there twice in its object";
    open.names?.add(open.key);
    if (this.#next() !== ":") return this.#unexpected("a colon");
    this.#at++;
    return undefined;
  }

  /** The next character that is no space; empty at the end. */
  #next(): string {
    this.#taken(SPACE);
    return this.#text.charAt(this.#at);
  }

  #taken(what: RegExp): string | undefined {
    what.lastIndex = this.#at;
    const [found] = what.exec(this.#text) ?? [];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  /** From its first quote. Texts may be long: a pattern would need too much room. */
  #skipText(): string | undefined {
    for (this.#at++; this.#at < this.#text.length; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === QUOTE) {
        this.#at++;
        return undefined;
      }
      if (code < SPACE_CODE) return "is not JSON: has a line break or another control character in a text; write \\n";
      if (code !== BACKSLASH) continue;
      if (!this.#skipEscaped()) return "is not JSON: has a backslash in a text that escapes nothing; write two";
    }
    return CUT;
  }

  /** From a backslash to the last character that belongs to it. */
  #skipEscaped(): boolean {
    const escaped = this.#text.charAt(this.#at + 1);
    this.#at++;
    if (escaped !== "u") return escaped !== "" && SIMPLE.includes(escaped);
    HEX4.lastIndex = this.#at + 1;
    if (!HEX4.test(this.#text)) return false;
    this.#at += 4;
    return true;
  }

  #unexpected(wanted: string): string {
    const found = this.#next();
    return found === "" ? CUT : `is not JSON: has ${JSON.stringify(found)} where ${wanted} is wanted`;
  }

  #path(): string {
    const steps = this.#open.slice(0, MOST_STEPS).map(({ isList, key, place }) => {
      if (isList) return `[${place}]`;
      return key === "" ? "" : stepTo(key);
    });
    return steps.join("").replace(/^\./, "");
  }
}

/** Another value follows. */
const MORE = "another value follows";
const CUT = "is not JSON: the text ends in the middle";
