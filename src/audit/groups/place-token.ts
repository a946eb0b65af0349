import { createHash } from "node:crypto";

/** Of what is inside; a later version may put more there. */
const VERSION = "1";
const DIGEST = 16;

/** An opaque token for a place: some numbers, which mean something to one question alone. */
export function writePlace(question: string, numbers: readonly number[]): string {
  const text = numbers.join(" ");
  return Buffer.from(`${VERSION} ${text} ${digestOf(question, text)}`).toString("base64url");
}

/** The numbers of a token, as many as are wanted; undefined when it was not made for this question. */
export function readPlace(question: string, token: string, count: number): readonly number[] | undefined {
  const parts = Buffer.from(token, "base64url").toString().split(" ");
  const texts = parts.slice(1, -1);
  if (parts[0] !== VERSION || texts.length !== count) return undefined;
  if (parts.at(-1) !== digestOf(question, texts.join(" "))) return undefined;
  const numbers = texts.map(Number);
  return numbers.every((number) => Number.isSafeInteger(number) && number >= 0) ? numbers : undefined;
}

function digestOf(question: string, text: string): string {
  return createHash("sha256").update(`${question}\0${text}`).digest("base64url").slice(0, DIGEST);
}
