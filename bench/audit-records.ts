import { create, toBinary } from "@bufbuild/protobuf";
import { seal } from "../src/audit/record/leaf.ts";
import type { Sealed } from "../src/audit/record/record.ts";
import { type AuditEntry, AuditEntrySchema } from "../src/gen/holdfast/v1/audit_pb.js";

/** The records of the benchmark: 300 bytes each as a producer sends them, sequence and all. */
export const RECORD_BYTES = 300;
/** Four bytes as a varint from here on, for 266 million: what differs between records can be patched in place. */
export const FIRST_SEQUENCE = 2 ** 21;
export const SEQUENCE_BYTES = 4;
export const ACTORS = 1_000;
/** Of a filled archive one record in so many is by this actor. */
export const RARE = { actor: "user:rare", every: 250_000 } as const;
const RESOURCES = 100_000;
/** A time whose seconds take five bytes, as all do from 1978 to 3058. */
const TIME = { seconds: 1_795_159_382n, nanos: 671_000_000 };
const FILLER = "what someone would like to know about this later, in words ".repeat(4);

/** A record whose sequence, time and trace are still to be patched. */
export function entryAt(number: number, actor = `user:${number % ACTORS}`): AuditEntry {
  const make = (filler: number) =>
    create(AuditEntrySchema, {
      occurTime: TIME,
      actor,
      action: `invoice.${ACTIONS[number % ACTIONS.length]}`,
      resource: { type: "invoice", id: String((number * 7919) % RESOURCES) },
      outcome: 1 + (number % 3),
      service: "billing",
      context: { ipAddress: "192.0.2.17", userAgent: "Mozilla/5.0 (X11; Linux x86_64)", traceId: traceText(number) },
      attributes: { amount: "17.50", note: FILLER.slice(0, filler) },
    });
  const most = make(FILLER.length);
  return make(FILLER.length - (appendBytes(toBinary(AuditEntrySchema, most)).length - RECORD_BYTES));
}

const ACTIONS = ["create", "update", "approve", "send", "pay", "cancel"];

/** The same as the server seals it: what is queued and archived. */
export function sealedAt(producer: string, number: number, actor?: string): Sealed {
  return seal({ producer, sequence: FIRST_SEQUENCE }, Number(TIME.seconds) * 1_000_000, entryAt(number, actor));
}

/** An AuditAppend with FIRST_SEQUENCE. */
export function appendBytes(entry: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([1 << 3]), varint(FIRST_SEQUENCE), lengthDelimited(2, entry)]);
}

/** Where the sequence begins in what `appendBytes` makes. */
export const SEQUENCE_AT = 1;

export function lengthDelimited(field: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([(field << 3) | 2]), varint(bytes.length), bytes]);
}

export function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}

export function patchSequence(bytes: Buffer, at: number, sequence: number): void {
  bytes[at] = (sequence & 127) | 128;
  bytes[at + 1] = ((sequence >> 7) & 127) | 128;
  bytes[at + 2] = ((sequence >> 14) & 127) | 128;
  bytes[at + 3] = sequence >> 21;
}

/** So many of the first digits of a trace are patched. */
export const TRACE_DIGITS = 8;

/** Three records share a trace. */
export function traceText(number: number): string {
  return Math.floor(number / 3)
    .toString(16)
    .padStart(TRACE_DIGITS, "0")
    .padEnd(32, "0af7651916cd43dd8448eb211c80319c");
}

const DIGITS = Buffer.from("0123456789abcdef");

export function patchTrace(bytes: Buffer, at: number, number: number): void {
  const trace = Math.floor(number / 3);
  for (let digit = 0; digit < TRACE_DIGITS; digit++) bytes[at + digit] = DIGITS[(trace >> (28 - 4 * digit)) & 15] ?? 0;
}

const secondsNow = Buffer.alloc(5);

/** The seconds of a time: now. */
export function patchSeconds(bytes: Buffer, at: number): void {
  secondsNow.copy(bytes, at);
}

/** What time it is from now on. */
export function setClock(ms: number): void {
  secondsNow.set(varint(Math.floor(ms / 1000)));
}

/** Where the seconds of occur_time, which comes first, begin in an entry. */
export const SECONDS_AT = 3;
