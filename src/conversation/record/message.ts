import { randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type ConversationMessage, ConversationMessageSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { Failure } from "../../infra/failure.ts";
import { valuesIn } from "../../infra/json-values.ts";
import type { Message } from "./conversation.ts";
import { field as fieldOf, joined, type Part } from "./conversation-bytes.ts";
import { ConversationFields, LIMITS } from "./fields.ts";
import { type Content, contentOf, jsonIn } from "./message-content.ts";
import { checkJson, checkPart } from "./message-parts.ts";
import { MOST_VALUES, tooManyInMessage, tooManyInMessages } from "./struct-values.ts";
import { textField, timeField } from "./summary-bytes.ts";

/**
 * The messages of a request, checked: what is wrong goes to `fields`, and then those that are wrong are left out. Those without an
 * id or a time are given one. Throws a Failure for what is too large.
 */
export function messagesOf(
  fields: ConversationFields,
  field: string,
  given: readonly ConversationMessage[],
  nowUs: number,
): readonly Message[] {
  if (given.length > LIMITS.messages) {
    const message = `${field}: has ${given.length} elements; the limit is ${LIMITS.messages} a request`;
    throw new Failure("too_large", "TOO_MANY_MESSAGES", message, { metadata: { field } });
  }
  const seen = new Set<string>();
  const messages: Message[] = [];
  let bytes = 0;
  let values = 0;
  for (const [at, message] of given.entries()) {
    const own = new ConversationFields();
    check(own, message);
    if (message.id !== "" && seen.has(message.id)) own.refuse("id", "comes twice in this request");
    seen.add(message.id);
    for (const fault of own.violations) fields.refuse(`${field}[${at}].${fault.field}`, fault.description);
    if (own.violations.length > 0) continue;
    const its = partsAndValues(message);
    if (its > MOST_VALUES) throw tooManyInMessage(`${field}[${at}]`);
    values += its;
    if (values > MOST_VALUES) throw tooManyInMessages(field);
    const content = contentOf(message);
    bytes += content.bytes.length;
    if (content.bytes.length > LIMITS.messageBytes) {
      const text = `${field}[${at}]: is ${content.bytes.length} bytes long; the limit is ${LIMITS.messageBytes}`;
      throw new Failure("too_large", "MESSAGE_TOO_LARGE", text, { metadata: { field: `${field}[${at}]` } });
    }
    messages.push(messageOf(message, content, nowUs));
  }
  if (bytes > LIMITS.messagesBytes) {
    const message = `${field}: are ${bytes} bytes together; the limit is ${LIMITS.messagesBytes} a request`;
    throw new Failure("too_large", "TOO_MANY_MESSAGES", message, { metadata: { field } });
  }
  return messages;
}

/** What making something of a message takes the time by. */
function partsAndValues(message: ConversationMessage): number {
  let count = message.parts.length;
  for (const json of jsonIn(message)) count += valuesIn(json, MOST_VALUES - count);
  return count;
}

function check(fields: ConversationFields, message: ConversationMessage): void {
  const { id, role, content, parts, createTime, metadata } = message;
  fields.text("id", id, LIMITS.messageIdBytes, true);
  fields.text("role", role, LIMITS.roleBytes);
  if (content === "" && parts.length === 0) fields.refuse("content", "must not be empty where there are no parts");
  if (parts.length > LIMITS.parts) fields.count("parts", parts.length, LIMITS.parts);
  else for (const [at, part] of parts.entries()) checkPart(fields, `parts[${at}]`, part);
  if (createTime !== undefined && !isTime(createTime)) {
    fields.refuse("create_time", "is not a time from the year 1 to the year 9999");
  }
  if (metadata !== undefined) checkJson(fields, "metadata", metadata);
}

const YEAR_1 = -62_135_596_800n;
const YEAR_10000 = 253_402_300_800n;

export function isTime({ seconds, nanos }: Timestamp): boolean {
  return seconds >= YEAR_1 && seconds < YEAR_10000 && nanos >= 0 && nanos < 1_000_000_000;
}

const { id: ID, createTime: TIME } = ConversationMessageSchema.field;

/** A serialized message may be put together of parts: what is no content stands before what is. */
function messageOf({ id: given, role, createTime }: ConversationMessage, content: Content, nowUs: number): Message {
  const id = given === "" ? randomUUID() : given;
  const time: Part =
    createTime === undefined
      ? timeField(TIME.number, nowUs)
      : fieldOf(TIME.number, toBinary(TimestampSchema, createTime));
  return { id, role, contentHash: content.hash, body: joined([textField(ID.number, id), time, content.bytes]) };
}
