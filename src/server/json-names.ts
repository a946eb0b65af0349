import type { FieldViolation } from "../infra/failure.ts";
import { jsonFault } from "./json-fault.ts";

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];

/**
 * Whether an object in JSON has a name twice. JSON.parse, whose value is given as well, keeps the last one without a word: then the
 * text has more members than the value.
 */
export function hasNameTwice(text: string, json: unknown): boolean {
  return colonsIn(text) > membersIn(json);
}

/** Where that is. Undefined: too far behind. */
export function nameTwiceIn(text: string): FieldViolation | undefined {
  return jsonFault(text, { namesTwice: false });
}

function membersIn(json: unknown): number {
  if (typeof json !== "object" || json === null) return 0;
  const values: readonly unknown[] = Array.isArray(json) ? json : Object.values(json);
  let members = Array.isArray(json) ? 0 : values.length;
  for (const value of values) members += membersIn(value);
  return members;
}

/** Outside texts each belongs to a member. */
function colonsIn(text: string): number {
  let colons = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === COLON) colons++;
    else if (code === QUOTE) at = endOfText(text, at + 1);
  }
  return colons;
}

/** Where the quote is that ends a text. Most of a large request is texts: looking for their ends is all there is to do with them. */
function endOfText(text: string, start: number): number {
  for (let end = text.indexOf('"', start); end >= 0; end = text.indexOf('"', end + 1)) {
    let first = end;
    while (text.charCodeAt(first - 1) === BACKSLASH) first--;
    if ((end - first) % 2 === 0) return end;
  }
  return text.length;
}
