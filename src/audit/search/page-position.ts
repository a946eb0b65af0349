import { createHash } from "node:crypto";

/** Tokens of another layout are not read. */
const VERSION = "1";
const DIGEST_LENGTH = 16;

/**
 * Numbers that a caller brings back to go on where an answer ended. `subject` is what was asked for, as a text: the token is of
 * no use with anything else.
 */
export function writeToken(subject: string, numbers: readonly number[]): string {
  return Buffer.from([VERSION, ...numbers, digestOf(subject)].join(" ")).toString("base64url");
}

/** The numbers of a token, so many. Undefined when it was not written for this subject. */
export function readToken(subject: string, token: string, count: number): readonly number[] | undefined {
  const parts = Buffer.from(token, "base64url").toString().split(" ");
  const numbers = parts.slice(1, -1).map(Number);
  const isWhole = parts[0] === VERSION && parts.at(-1) === digestOf(subject) && numbers.length === count;
  return isWhole && numbers.every(Number.isSafeInteger) ? numbers : undefined;
}

function digestOf(subject: string): string {
  return createHash("sha256").update(subject).digest("base64url").slice(0, DIGEST_LENGTH);
}
