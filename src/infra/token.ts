import { createHash } from "node:crypto";

/** Of what is inside; tokens of another layout are not read. */
const VERSION = "1";
const DIGEST_LENGTH = 16;

/**
 * An opaque token for a place: some numbers that a caller brings back to go on where an answer ended. `question` is what was
 * asked for, as a text: the token is of no use with any other.
 */
export function writeToken(question: string, place: readonly number[]): string {
  const text = place.join(" ");
  return Buffer.from(`${VERSION} ${text} ${digestOf(question, text)}`).toString("base64url");
}

/**
 * The numbers of a token, as many as are wanted; undefined when it was not written for this question. The digest is no secret:
 * what the numbers can be is for the caller to check.
 */
export function readToken(question: string, token: string, count: number): readonly number[] | undefined {
  const [version, ...texts] = Buffer.from(token, "base64url").toString().split(" ");
  const digest = texts.pop();
  const numbers = texts.map(Number);
  if (version !== VERSION || numbers.length !== count || digest !== digestOf(question, texts.join(" ")))
    return undefined;
  return numbers.every(Number.isSafeInteger) ? numbers : undefined;
}

function digestOf(question: string, text: string): string {
  return createHash("sha256").update(`${question}\0${text}`).digest("base64url").slice(0, DIGEST_LENGTH);
}
