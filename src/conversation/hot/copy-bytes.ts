import type { ConversationKey, Held, Presence } from "../record/conversation.ts";
import type { Copy } from "./hot-copies.ts";

/*
 * How a copy stands in Redis: a head of fixed width in ASCII, which the scripts read and write in place; then what is held, in a
 * room a little larger than that, so that a change that leaves the state where it is need not write it again; then the state.
 *
 *     "hfc1" | cover: stamp, until when (ms), token | stamp | state version | life | held: length, room | state: length
 */
const MAGIC = "hfc1";
const DIGITS = 16;
const LIFE = 40;
const LENGTH = 10;
/** Tells one cover from another one of the same stamp. */
export const TOKEN = 16;

const NUMBERS_AT = MAGIC.length + 2 * DIGITS + TOKEN;

/** Where the parts of the head begin. */
export const AT = {
  cover: MAGIC.length,
  until: MAGIC.length + DIGITS,
  token: MAGIC.length + 2 * DIGITS,
  stamp: NUMBERS_AT,
  stateVersion: NUMBERS_AT + DIGITS,
  life: NUMBERS_AT + 2 * DIGITS,
  heldLength: NUMBERS_AT + 2 * DIGITS + LIFE,
  room: NUMBERS_AT + 2 * DIGITS + LIFE + LENGTH,
  stateLength: NUMBERS_AT + 2 * DIGITS + LIFE + 2 * LENGTH,
} as const;
export const HEAD = AT.stateLength + LENGTH;
/** In place of the cover where there is none. */
export const UNCOVERED = "0".repeat(2 * DIGITS + TOKEN);

/** Enough for most of what is held and its head, so that one look is enough. */
export const FIRST_LOOK = 1024;

const SPARE = 64;

/** What a head says of a life: a name of 40 letters and digits. */
export function lifeText(life: string): string {
  return life.padEnd(LIFE).slice(0, LIFE);
}

function digits(value: number, width: number): string {
  return String(value).padStart(width, "0");
}

export function encodeCopy({ held, state }: Copy, life: string): Buffer {
  const bytes = encodeHeld(held);
  const room = Math.ceil(bytes.length / SPARE) * SPARE + SPARE;
  const numbers = [held.stamp, held.stateVersion].map((value) => digits(value, DIGITS)).join("");
  const lengths = [bytes.length, room, state.length].map((value) => digits(value, LENGTH)).join("");
  const all = Buffer.alloc(HEAD + room + state.length);
  all.write(MAGIC + UNCOVERED + numbers + lifeText(life) + lengths, "latin1");
  all.set(bytes, HEAD);
  all.set(state, HEAD + room);
  return all;
}

interface Head {
  readonly covered: boolean;
  readonly stamp: number;
  readonly stateVersion: number;
  readonly life: string;
  readonly heldEnd: number;
  readonly stateStart: number;
  readonly stateEnd: number;
}

function headOf(bytes: Buffer): Head | undefined {
  if (bytes.length < HEAD || bytes.toString("latin1", 0, MAGIC.length) !== MAGIC) return undefined;
  const number = (at: number, width: number) => Number(bytes.toString("latin1", at, at + width));
  const stateStart = HEAD + number(AT.room, LENGTH);
  return {
    covered: number(AT.cover, DIGITS) !== 0,
    stamp: number(AT.stamp, DIGITS),
    stateVersion: number(AT.stateVersion, DIGITS),
    life: bytes.toString("latin1", AT.life, AT.life + LIFE),
    heldEnd: HEAD + number(AT.heldLength, LENGTH),
    stateStart,
    stateEnd: stateStart + number(AT.stateLength, LENGTH),
  };
}

/** Undefined: it is not of this life, it is covered, its state is not in it, or what is there is not a copy of this conversation. */
export function decodeCopy(bytes: Buffer, key: ConversationKey, life: string): Copy | undefined {
  const head = headOf(bytes);
  if (head === undefined || !(head.stateEnd <= bytes.length)) return undefined;
  const held = heldIn(bytes, head, key, life);
  if (held === undefined || head.stateEnd - head.stateStart < held.stateBytes) return undefined;
  return { held, state: bytes.subarray(head.stateStart, head.stateEnd) };
}

/** The same of its beginning. "longer": the beginning is too short. */
export function decodeHead(bytes: Buffer, key: ConversationKey, life: string): Held | undefined | "longer" {
  const head = headOf(bytes);
  if (head === undefined) return undefined;
  if (head.heldEnd > bytes.length && bytes.length === FIRST_LOOK) return "longer";
  return heldIn(bytes, head, key, life);
}

function heldIn(bytes: Buffer, head: Head, key: ConversationKey, life: string): Held | undefined {
  if (head.covered || !(head.stamp > 0) || head.life !== lifeText(life)) return undefined;
  if (!(head.heldEnd <= bytes.length) || head.heldEnd < HEAD + NUMBERS * 8) return undefined;
  const held = decodeHeld(bytes.subarray(HEAD, head.heldEnd), head);
  return held?.collection === key.collection && held.id === key.id ? held : undefined;
}

const PRESENCES: readonly Presence[] = ["live", "expired", "deleted"];
const NUMBERS = 14;
/** For what is not there. */
const NONE = Number.NaN;

export function encodeHeld(held: Held): Buffer {
  const { origin } = held;
  const numbers = [
    ...[held.version, PRESENCES.indexOf(held.presence), held.generation, held.cutVersion, held.messageCount],
    ...[held.stateBytes, held.createdUs, held.updatedUs, held.expiresUs ?? NONE, held.ttlMs ?? NONE],
    ...[held.sliding ? 1 : 0, held.keptUntilUs ?? NONE, held.confidenceScore ?? NONE, origin?.version ?? NONE],
  ];
  const texts = [
    ...[held.collection, held.id, held.userId, held.status, held.complexityLevel],
    ...[origin?.collection ?? "", origin?.id ?? ""],
  ];
  const lengths = texts.map((text) => Buffer.byteLength(text));
  const bytes = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + 4 + length, NUMBERS * 8));
  let at = 0;
  for (const number of numbers) at = bytes.writeDoubleBE(number, at);
  for (const [index, text] of texts.entries()) {
    at = bytes.writeUInt32BE(lengths[index] ?? 0, at);
    at += bytes.write(text, at);
  }
  return bytes;
}

function decodeHeld(bytes: Buffer, { stamp, stateVersion }: Pick<Head, "stamp" | "stateVersion">): Held | undefined {
  const number = (index: number) => bytes.readDoubleBE(index * 8);
  const known = (index: number) => {
    const value = number(index);
    return Number.isNaN(value) ? undefined : value;
  };
  let at = NUMBERS * 8;
  const text = () => {
    // Where it is cut off, what follows is not found, and the names do not match.
    if (at + 4 > bytes.length) return "";
    const start = at + 4;
    at = start + bytes.readUInt32BE(at);
    return bytes.toString("utf8", start, at);
  };
  const [collection, id, userId, status, complexityLevel] = [text(), text(), text(), text(), text()];
  const [originCollection, originId, originVersion] = [text(), text(), known(13)];
  const presence = PRESENCES[number(1)];
  if (presence === undefined || at !== bytes.length) return undefined;
  return {
    ...{ collection, id, stamp, version: number(0), presence, generation: number(2), stateVersion },
    ...{ cutVersion: number(3), userId, status, complexityLevel, confidenceScore: known(12) },
    ...{ messageCount: number(4), stateBytes: number(5), createdUs: number(6), updatedUs: number(7) },
    ...{ expiresUs: known(8), ttlMs: known(9), sliding: number(10) === 1, keptUntilUs: known(11) },
    origin:
      originVersion === undefined ? undefined : { collection: originCollection, id: originId, version: originVersion },
  };
}
