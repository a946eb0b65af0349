import { toBinary } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { FIXED64 } from "../../infra/wire-reader.ts";
import type { Held } from "./conversation.ts";
import { field, messageOf, numberField, type Part } from "./conversation-bytes.ts";
import { timestampOf } from "./summary.ts";

/**
 * A serialized ConversationSummary, as `summaryOf` would be encoded: for reads, which spend more on making and encoding one than on
 * all the rest. A test holds it to what the generated code writes.
 */
export function summaryBytes(held: Held): Buffer {
  const { confidenceScore, expiresUs, origin } = held;
  const parts: Part[] = [
    ...[textField(1, held.collection), textField(2, held.id), numberField(3, held.version)],
    ...[textField(4, held.userId), textField(5, held.status), textField(6, held.complexityLevel)],
  ];
  if (confidenceScore !== undefined) parts.push(doubleField(7, confidenceScore));
  parts.push(numberField(8, held.messageCount), numberField(9, held.stateBytes));
  parts.push(timeField(10, held.createdUs), timeField(11, held.updatedUs));
  if (expiresUs !== undefined) parts.push(timeField(12, expiresUs));
  parts.push(numberField(13, held.sliding ? 1 : 0));
  if (origin !== undefined) {
    const { collection, id, version } = origin;
    parts.push(field(14, textField(1, collection), textField(2, id), numberField(3, version)));
  }
  return messageOf(...parts);
}

/** Empty text is left out, as proto3 does. */
export function textField(number: number, text: string): Part {
  return text === "" ? NOTHING : field(number, Buffer.from(text));
}

export function timeField(number: number, us: number): Part {
  // Only what was imported can be as old.
  if (us < 0) return field(number, toBinary(TimestampSchema, timestampOf(us)));
  const seconds = Math.floor(us / 1_000_000);
  return field(number, numberField(1, seconds), numberField(2, (us - seconds * 1_000_000) * 1000));
}

function doubleField(number: number, value: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(9);
  bytes[0] = (number << 3) | FIXED64;
  bytes.writeDoubleLE(value, 1);
  return bytes;
}

const NOTHING = new Uint8Array();
