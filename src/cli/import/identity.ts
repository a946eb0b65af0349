import { createHash } from "node:crypto";

/** An imported record keeps one identity for good, so that a second import finds it there. */

const PRODUCER_BYTES = 128;

/** The producer of what a source of this name holds. */
export function producerFor(...names: readonly string[]): string {
  const name = ["import", ...names.map((part) => part.replace(/[^A-Za-z0-9._:-]/g, "-"))].join(".");
  if (name.length <= PRODUCER_BYTES) return name;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 12);
  return `${name.slice(0, PRODUCER_BYTES - 13)}-${digest}`;
}

export function isProducer(name: string): boolean {
  return /^[A-Za-z0-9._:-]{1,128}$/.test(name);
}

/**
 * A sequence for what has no number of its own: 53 bits of a hash. Should two texts ever share one, the server refuses the second,
 * and the account says so.
 */
export function sequenceOfText(text: string | Uint8Array): number {
  const digest = createHash("sha256").update(text).digest();
  const number = digest.readUIntBE(0, 6) * 32 + ((digest[6] ?? 0) >>> 3);
  return number === 0 ? 1 : number;
}

/** Entries of one millisecond that are told apart by their number. */
const PER_MS = 4096;

/** The id of an entry of a stream as a number: rising with it, unless an id is one that Redis does not make by itself. */
export function sequenceOfEntry(id: string): number {
  const [ms = "", number = ""] = id.split("-");
  const sequence = Number(ms) * PER_MS + Number(number);
  const isExact = Number(number) < PER_MS && Number.isSafeInteger(sequence) && sequence > 0;
  return isExact ? sequence : sequenceOfText(id);
}
