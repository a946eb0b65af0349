import { createHash } from "node:crypto";
import { create, type JsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { type ConversationMessage, ConversationMessageSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { valuesIn } from "../../infra/json-values.ts";
import {
  canonicalText,
  isObject,
  isText,
  type JsonRules,
  kindOf,
  type Parsed,
  type ParsedObject,
  storable,
  storableText,
  textOf,
  Unfit,
} from "./conversation-json.ts";
import { saidIn } from "./conversation-said.ts";
import { momentOf } from "./values.ts";

/** What the contract allows; what is over it is known before anything is sent. */
const MOST_MESSAGES = 1_000_000;
const MESSAGE_BYTES = 256 * 1024;
const ID_BYTES = 128;
/** Of a request: parts and values of JSON. */
export const MOST_VALUES = 16_384;

/** A message, ready to be sent. */
export interface Prepared {
  readonly message: ConversationMessage;
  readonly bytes: number;
  /** No fewer than it has in parts and in JSON. */
  readonly values: number;
  /** Whether its id is made of what it says and of all that stands before it. */
  readonly tellsAllBefore: boolean;
}

/**
 * The messages of a document. Each has the same id at each import: its own, if it has one, else one made of what it says and of all
 * that stands before it.
 */
export function messagesOf(list: Parsed | undefined, rules: JsonRules): readonly Prepared[] {
  if (list === undefined || list === null) return [];
  if (typeof list !== "object" || isObject(list)) {
    throw new Unfit("UNKNOWN_LAYOUT", `messages is ${kindOf(list)}, and no list`);
  }
  if (list.length > MOST_MESSAGES) {
    throw new Unfit("TOO_MANY_MESSAGES", `has ${list.length} messages; the limit is ${MOST_MESSAGES}`);
  }
  const ids = createIds();
  return list.map((raw, at) => prepare(raw, `messages[${at}]`, ids, rules));
}

type Ids = (raw: ParsedObject) => { readonly id: string; readonly isOwn: boolean };

function createIds(): Ids {
  const seen = new Set<string>();
  let before = "";
  let position = 0;
  return (raw) => {
    position++;
    before = createHash("sha256").update(before).update(canonicalText(raw)).digest("hex").slice(0, 24);
    const own = raw.id;
    const isOwn = isText(own) && isId(own) && !seen.has(own);
    const id = isOwn ? own : `import-${position}-${before}`;
    seen.add(id);
    return { id, isOwn };
  };
}

function isId(text: string): boolean {
  return text !== "" && Buffer.byteLength(text) <= ID_BYTES && text.isWellFormed() && !text.includes("\0");
}

function prepare(raw: Parsed, path: string, ids: Ids, rules: JsonRules): Prepared {
  if (!isObject(raw)) throw new Unfit("UNKNOWN_LAYOUT", `${path} is ${kindOf(raw)}; wanted {role, content, timestamp}`);
  const { id: ownId, role, timestamp } = raw;
  if (typeof role !== "string" || role === "") {
    throw new Unfit("UNKNOWN_LAYOUT", `${path}.role is ${role === "" ? "empty" : kindOf(role)}; it is ${kindOf(raw)}`);
  }
  const { id, isOwn } = ids(raw);
  const moment = momentOf(textOf(timestamp));
  const isTimed = moment !== undefined && moment.seconds >= YEAR_1 && moment.seconds < YEAR_10000;
  const { content, parts, others } = saidIn(raw, path, rules);
  const metadata = metadataOf(
    {
      ...others,
      ...(ownId !== undefined && !isOwn && { id: ownId }),
      // A time that is none is kept as it was written.
      ...(!isTimed && timestamp !== undefined && timestamp !== null && { timestamp }),
    },
    path,
    rules,
  );
  const message = create(ConversationMessageSchema, {
    ...{ id, role: storableText(role, `${path}.role`), content, parts },
    ...(isTimed && { createTime: moment }),
    ...(metadata && { metadata }),
  });
  const bytes = toBinary(ConversationMessageSchema, message).length;
  if (bytes > MESSAGE_BYTES) {
    throw new Unfit("MESSAGE_TOO_LARGE", `${path} takes ${bytes} bytes; the limit is ${MESSAGE_BYTES}`);
  }
  return {
    message,
    bytes,
    values: valuesIn(toJson(ConversationMessageSchema, message), MOST_VALUES),
    tellsAllBefore: !isOwn,
  };
}

const YEAR_1 = -62_135_596_800n;
const YEAR_10000 = 253_402_300_800n;

/** What has no place of its own. The members of its `metadata` are metadata themselves, unless they would hide others. */
function metadataOf(others: ParsedObject, path: string, rules: JsonRules): JsonObject | undefined {
  const { metadata, ...rest } = others;
  const isMerged = isObject(metadata) && Object.keys(metadata).every((name) => !(name in rest));
  const all = isMerged ? { ...rest, ...metadata } : others;
  const entries = Object.entries(all);
  if (entries.length === 0) return undefined;
  return Object.fromEntries(entries.map(([name, value]) => [name, storable(value, `${path}.${name}`, rules, 2)]));
}
