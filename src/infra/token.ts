import { createHash } from "node:crypto";

/** Of what is inside; tokens of another layout are not read. */
const VERSION = "1";
const DIGEST_LENGTH = 16;

/** A place among things that are ordered by numbers, and by their names where the numbers are the same. */
export interface NamedPlace {
  readonly place: readonly number[];
  readonly name: string;
}

/**
 * An opaque token for a place: some numbers that a caller brings back to go on where an answer ended. `question` is what was
 * asked for, as a text: the token is of no use with any other.
 */
export function writeToken(question: string, place: readonly number[]): string {
  return sealed(question, place.map(String));
}

/**
 * The numbers of a token, as many as are wanted; undefined when it was not written for this question. The digest is no secret:
 * what the numbers can be is for the caller to check.
 */
export function readToken(question: string, token: string, count: number): readonly number[] | undefined {
  return numbersOf(open(question, token), count);
}

export function writeNamedToken(question: string, { place, name }: NamedPlace): string {
  return sealed(question, [...place.map(String), Buffer.from(name).toString("base64url")]);
}

export function readNamedToken(question: string, token: string, count: number): NamedPlace | undefined {
  const texts = open(question, token);
  const name = texts?.pop();
  const place = numbersOf(texts, count);
  if (place === undefined || name === undefined) return undefined;
  return { place, name: Buffer.from(name, "base64url").toString() };
}

function sealed(question: string, texts: readonly string[]): string {
  const text = texts.join(" ");
  return Buffer.from(`${VERSION} ${text} ${digestOf(question, text)}`).toString("base64url");
}

function open(question: string, token: string): string[] | undefined {
  const bytes = Buffer.from(token, "base64url");
  // What is no base64url, or too much at the end, would be passed over.
  if (bytes.toString("base64url") !== token) return undefined;
  const [version, ...texts] = bytes.toString().split(" ");
  const digest = texts.pop();
  return version === VERSION && digest === digestOf(question, texts.join(" ")) ? texts : undefined;
}

function numbersOf(texts: readonly string[] | undefined, count: number): readonly number[] | undefined {
  const numbers = texts?.map(Number);
  return numbers?.length === count && numbers.every(Number.isSafeInteger) ? numbers : undefined;
}

function digestOf(question: string, text: string): string {
  return createHash("sha256").update(`${question}\0${text}`).digest("base64url").slice(0, DIGEST_LENGTH);
}
