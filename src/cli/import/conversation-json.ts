import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** Why something is not imported. */
export class Unfit extends Error {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message);
    this.name = "Unfit";
    this.reason = reason;
  }
}

/** JSON in which no integer was rounded: one that a double cannot hold is a text that begins with MARK. */
export type Parsed = null | boolean | number | string | readonly Parsed[] | ParsedObject;
export type ParsedObject = { readonly [name: string]: Parsed };

/** No text of a document begins so. */
const MARK = `integer ${crypto.randomUUID()} `;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");
const NO_NUMBER = /^(?:-?Infinity|NaN)/;

/** Throws Unfit when it is no JSON. */
export function parseExactly(text: string): Parsed {
  try {
    // Looking at each value on its own takes several times as long, and most documents have no such number.
    const value: Parsed = /\d{16}/.test(text) ? JSON.parse(text, marked) : JSON.parse(text);
    return value;
  } catch (error) {
    throw unfit(text, error);
  }
}

function marked(_: string, value: unknown, ...[context]: readonly { readonly source?: string }[]): unknown {
  const source = context?.source;
  if (typeof value !== "number" || source === undefined || !/^-?\d+$/.test(source)) return value;
  return BigInt(value) === BigInt(source) ? value : MARK + source;
}

/** What JSON.parse says names places in the marked text, and repeats the document: neither helps. */
function unfit(text: string, error: unknown): Unfit {
  if (error instanceof RangeError) return new Unfit("NESTED_TOO_DEEP", "is nested too deep to be read");
  const begin = text.trimStart();
  if (begin === "") return new Unfit("NOT_JSON", "is empty");
  const at = noNumberIn(text);
  if (at !== undefined) {
    const [word] = NO_NUMBER.exec(text.slice(at, at + 10)) ?? [];
    return new Unfit("NOT_A_NUMBER", `holds ${word}, which is not JSON, at ${around(text, at)}`);
  }
  if (!/^["[{]/.test(begin)) return new Unfit("NOT_JSON", `is not JSON; it begins with ${shownText(begin)}`);
  return new Unfit("NOT_JSON", `is not JSON, or is torn off; it ends with ${shownText(text.trimEnd().slice(-60))}`);
}

/** Where the first NaN or Infinity stands, as some writers of JSON put it. */
function noNumberIn(text: string): number | undefined {
  let inText = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "\\") at++;
    else if (char === '"') inText = !inText;
    else if (!inText && (char === "N" || char === "I" || char === "-")) {
      if (NO_NUMBER.test(text.slice(at, at + 10))) return at;
    }
  }
  return undefined;
}

function around(text: string, at: number): string {
  return shownText(text.slice(Math.max(0, at - 40), at + 10));
}

function shownText(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text);
}

export function isObject(value: Parsed | undefined): value is ParsedObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const SHOWN_NAMES = 8;

/** What a value is, in words. */
export function kindOf(value: Parsed | undefined): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (isObject(value)) return `an object with ${namesOf(value)}`;
  if (typeof value === "object") return "a list";
  if (typeof value === "string") return isText(value) ? "a text" : "a number";
  return typeof value === "boolean" ? "a boolean" : "a number";
}

/** What an object has, for people. */
export function namesOf(value: ParsedObject): string {
  const names = Object.keys(value);
  if (names.length === 0) return "no members";
  return names.length > SHOWN_NAMES ? `${names.slice(0, SHOWN_NAMES).join(", ")}, ...` : names.join(", ");
}

/** Whether it is a text in the document, too, and no number that a double cannot hold. */
export function isText(value: Parsed | undefined): value is string {
  return typeof value === "string" && !value.startsWith(MARK);
}

/** As it was written, where it is a text or a number. */
export function textOf(value: Parsed | undefined): string | undefined {
  if (typeof value === "string") return value.startsWith(MARK) ? value.slice(MARK.length) : value;
  return typeof value === "number" ? String(value) : undefined;
}

/** The JSON again, with every integer as it was written. */
export function exactText(value: Parsed): string {
  return unmarked(JSON.stringify(value));
}

function unmarked(text: string): string {
  return text.replaceAll(MARKED, "$1");
}

/** The same text for the same JSON, however its objects are ordered. */
export function canonicalText(value: Parsed | JsonValue): string {
  const text = JSON.stringify(value, (_, member: unknown) => {
    if (typeof member !== "object" || member === null || Array.isArray(member)) return member;
    return Object.fromEntries(Object.entries(member).sort(([one], [other]) => (one < other ? -1 : 1)));
  });
  return unmarked(text);
}

/** How deep what is stored may be nested, as the contract says; the outermost object is the first level. */
const MOST_LEVELS = 30;

export interface JsonRules {
  /** What a double cannot hold becomes text; else it is unfit. */
  readonly largeIntegersAsText: boolean;
}

/** As it may be stored. Throws Unfit, naming the place, for what a Struct cannot hold as it is. */
export function storable(value: Parsed, path: string, rules: JsonRules, level = 1): JsonValue {
  switch (typeof value) {
    case "boolean":
      return value;
    case "number":
      if (Number.isFinite(value)) return value;
      throw new Unfit("NUMBER_TOO_LARGE", `${path} is a number beyond the range of a double`);
    case "string":
      return storableText(value, path, rules);
  }
  if (value === null) return null;
  if (level > MOST_LEVELS) throw new Unfit("NESTED_TOO_DEEP", `${path} is nested deeper than ${MOST_LEVELS} levels`);
  if (isObject(value)) return storableObject(value, path, rules, level);
  return value.map((item, at) => storable(item, `${path}[${at}]`, rules, level + 1));
}

export function storableObject(value: ParsedObject, path: string, rules: JsonRules, level = 1): JsonObject {
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => {
      const place = path === "" ? name : `${path}.${name}`;
      if (!name.isWellFormed()) throw new Unfit("NOT_TEXT", `${place} has half a surrogate pair in its name`);
      return [name, storable(member, place, rules, level + 1)];
    }),
  );
}

export function storableText(value: string, path: string, { largeIntegersAsText }: Partial<JsonRules> = {}): string {
  if (!value.isWellFormed()) throw new Unfit("NOT_TEXT", `${path} has half a surrogate pair, which is not text`);
  if (!value.startsWith(MARK)) return value;
  const digits = value.slice(MARK.length);
  if (largeIntegersAsText) return digits;
  throw new Unfit(
    "NUMBER_TOO_LARGE",
    `${path} is ${digits}, which a double cannot hold; --large-integers-as-text makes a text of it`,
  );
}
