import type {
  ConversationStateServiceDeleteRequest as DeleteRequest,
  ConversationStateServiceExtendTtlRequest as ExtendTtlRequest,
  ConversationStateServiceRestoreRequest as RestoreRequest,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { fenceOf } from "../../infra/fencing.ts";
import type { OrderOf } from "../change/order.ts";
import type { State } from "../record/conversation.ts";
import { ConversationFields, versionFrom } from "../record/fields.ts";
import { createMerge, type PatchMerge } from "../record/merge.ts";
import { messagesOf } from "../record/message.ts";
import {
  type AppendRequest,
  type PatchRequest,
  patchBytesOf,
  type SaveRequest,
  stateBytesOf,
} from "../record/requests.ts";
import { checkState } from "../record/state.ts";
import { appendAttempt, patchAttempt, restoreAttempt, saveAttempt } from "./attempts.ts";

/** What requests order, checked. Each throws for a request that is wrong. */

export function saveOrder(request: SaveRequest, nowUs: number): OrderOf<"save"> {
  const fields = begin(request);
  const key = fields.key(request);
  const bytes = stateBytesOf(request);
  let state: State | undefined;
  if (bytes === undefined) fields.refuse("state", "is required; an empty one is a state");
  else state = checkState(fields, "state", bytes);
  const expectedVersion = fields.expectedVersion(request.expectedVersion, true);
  const expiry = fields.expiry("expiry", request.expiry);
  const messages = messagesOf(fields, "messages", request.messages, nowUs);
  fields.requestId(request.requestId);
  const fence = fenceOf(fields, request.fencing);
  const order = { key, state: settled(fields, state), expectedVersion, expiry, messages, fence };
  return { kind: "save", ...order, ...saveAttempt(request, order) };
}

export function patchOrder(request: PatchRequest): OrderOf<"patch"> {
  const fields = begin(request);
  const key = fields.key(request);
  const bytes = patchBytesOf(request);
  let merge: PatchMerge | undefined;
  if (bytes === undefined) fields.refuse("patch", "is required; an empty one is a patch");
  else merge = createMerge(fields, "patch", bytes);
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  const expiry = fields.expiry("expiry", request.expiry);
  fields.requestId(request.requestId);
  const fence = fenceOf(fields, request.fencing);
  const order = { key, merge: settled(fields, merge), expectedVersion, expiry, fence };
  return { kind: "patch", ...order, answersState: request.returnState, ...patchAttempt(request, order) };
}

export function appendOrder(request: AppendRequest, nowUs: number): OrderOf<"append"> {
  const fields = begin(request);
  const key = fields.key(request);
  if (request.messages.length === 0) fields.refuse("messages", "must not be empty");
  const messages = messagesOf(fields, "messages", request.messages, nowUs);
  const bytes = patchBytesOf(request);
  const merge = bytes && createMerge(fields, "patch", bytes);
  const { create } = request;
  if (request.expectedVersion === 0n && !create) {
    fields.refuse("expected_version", "must not be 0 without create: it says that the conversation must not exist");
  }
  const expectedVersion = fields.expectedVersion(request.expectedVersion, true);
  const expiry = fields.expiry("expiry", request.expiry);
  fields.requestId(request.requestId);
  const fence = fenceOf(fields, request.fencing);
  fields.done();
  const order = { key, messages, create, merge, expectedVersion, expiry, fence };
  return { kind: "append", ...order, ...appendAttempt(request, order) };
}

export function deleteOrder(request: DeleteRequest): OrderOf<"delete"> {
  const fields = new ConversationFields();
  const key = fields.key(request);
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  const fence = fenceOf(fields, request.fencing);
  fields.done();
  return { kind: "delete", key, expectedVersion, fence, requestId: "" };
}

export function extendOrder(request: ExtendTtlRequest): OrderOf<"extend"> {
  const fields = new ConversationFields();
  const key = fields.key(request);
  const expiry = fields.expiry("expiry", request.expiry) ?? { ttlMs: undefined, sliding: undefined };
  fields.done();
  return { kind: "extend", key, expiry, requestId: "" };
}

export function restoreOrder(request: RestoreRequest): OrderOf<"restore"> {
  const fields = new ConversationFields();
  const key = fields.key(request);
  if (request.version === 0n) fields.refuse("version", "is required");
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  fields.requestId(request.requestId);
  const fence = fenceOf(fields, request.fencing);
  fields.done();
  const { version, keepMessages } = request;
  const order = { key, version: versionFrom(version), askedVersion: version, keepMessages, expectedVersion, fence };
  return { kind: "restore", ...order, answersState: true, ...restoreAttempt(request) };
}

function begin({ undecided }: Pick<SaveRequest, "undecided">): ConversationFields {
  const fields = new ConversationFields();
  if (undecided !== undefined) fields.refuse(undecided.field, undecided.description);
  return fields;
}

/** What was checked, once nothing was refused. */
function settled<T>(fields: ConversationFields, checked: T | undefined): T {
  fields.done();
  if (checked === undefined) throw new Error("something was refused without a reason");
  return checked;
}
