import { type DescField, type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";

/**
 * What a request may hold in messages and in fields that nobody knows. Each takes two bytes on the wire and more than a hundred in
 * memory, so that a request of 16 MiB could take gigabytes.
 */
const MOST_PARTS = 500_000;
/** What takes the least has a tag and a length. */
const LEAST_BYTES = 2;
/** The decoder goes no deeper. */
const MOST_LEVELS = 100;

/** Of bytes that hold more messages than may be. */
export class CrowdedError extends Error {
  constructor(most: number) {
    super(`it holds more than ${most} messages; send several smaller requests`);
    this.name = "CrowdedError";
  }
}

/**
 * Decodes protobuf binary of whoever sent it. Throws when the bytes are no such message, or one that is made to take memory
 * (CrowdedError).
 */
export function decode<Desc extends DescMessage>(
  desc: Desc,
  bytes: Uint8Array,
  mostParts = MOST_PARTS,
): MessageShape<Desc> {
  if (bytes.length > LEAST_BYTES * mostParts) {
    new PartCounter(bytes, mostParts).count(partsOf(desc), bytes.length, 0);
  }
  return fromBinary(desc, bytes);
}

/** The same for JSON, whose brackets and commas tell how much there is of it. */
export function refuseCrowdedJson(text: string): void {
  if (text.length <= 2 * MOST_PARTS) return;
  let parts = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (quoted) {
      if (code === BACKSLASH) at++;
      else if (code === QUOTE) quoted = false;
    } else if (code === QUOTE) quoted = true;
    else if ((code === COMMA || code === BRACE || code === BRACKET) && ++parts > 2 * MOST_PARTS) {
      throw new CrowdedError(MOST_PARTS);
    }
  }
}

const [QUOTE, BACKSLASH, COMMA, BRACE, BRACKET] = [0x22, 0x5c, 0x2c, 0x7b, 0x5b];

/** The fields of a message by their number: those that hold messages with what these hold, the others undefined. */
type Parts = ReadonlyMap<number, (() => Parts) | undefined>;

const known = new WeakMap<DescMessage, Parts>();

function partsOf(desc: DescMessage): Parts {
  const found = known.get(desc);
  if (found !== undefined) return found;
  const parts: Parts = new Map(desc.fields.map((field) => [field.number, innerOf(field)]));
  known.set(desc, parts);
  return parts;
}

function innerOf({ fieldKind, message }: DescField): (() => Parts) | undefined {
  const inner = message && (() => partsOf(message));
  // An entry of a map is a message of a key and a value.
  if (fieldKind !== "map") return inner;
  const entry: Parts = new Map([
    [1, undefined],
    [2, inner],
  ]);
  return () => entry;
}

/** Walks through the bytes of a message without making anything of them. Where they are no message, the decoder has the word. */
class PartCounter {
  private readonly bytes: Uint8Array;
  private at = 0;
  private parts = 0;
  private readonly most: number;

  constructor(bytes: Uint8Array, most: number) {
    this.bytes = bytes;
    this.most = most;
  }

  count(fields: Parts, end: number, level: number): void {
    while (this.at < end) {
      const tag = this.varint();
      const number = Math.floor(tag / 8);
      const inner = fields.get(number);
      if ((inner !== undefined || !fields.has(number)) && ++this.parts > this.most) {
        throw new CrowdedError(this.most);
      }
      switch (tag & 7) {
        case 0:
          this.varint();
          break;
        case 1:
          this.at += 8;
          break;
        case 2: {
          const length = this.varint();
          const last = Math.min(this.at + length, end);
          if (inner !== undefined && level < MOST_LEVELS) this.count(inner(), last, level + 1);
          this.at = last;
          break;
        }
        case 5:
          this.at += 4;
          break;
      }
    }
  }

  /** Of 64 bits, of which those beyond 53 need not be exact. */
  private varint(): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 63; factor *= 128) {
      const byte = this.bytes[this.at++] ?? 0;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) break;
    }
    return value;
  }
}
