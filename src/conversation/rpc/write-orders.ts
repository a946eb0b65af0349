import type {
  ConversationStateServiceDeleteRequest as DeleteRequest,
  ConversationStateServiceExtendTtlRequest as ExtendTtlRequest,
  ConversationStateServiceRestoreRequest as RestoreRequest,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { requireNoFencing } from "../../infra/fencing.ts";
import type { Merge, OrderOf } from "../change/order.ts";
import type { State } from "../record/conversation.ts";
import { ConversationFields, versionFrom } from "../record/fields.ts";
import { createMerge } from "../record/merge.ts";
import { messagesOf } from "../record/message.ts";
import {
  type AppendRequest,
  type PatchRequest,
  patchBytesOf,
  type SaveRequest,
  stateBytesOf,
} from "../record/requests.ts";
import { checkState } from "../record/state.ts";

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
  const requestId = attempt("Save", fields, request);
  return { kind: "save", key, state: settled(fields, state), expectedVersion, expiry, messages, requestId };
}

export function patchOrder(request: PatchRequest): OrderOf<"patch"> {
  const fields = begin(request);
  const key = fields.key(request);
  const bytes = patchBytesOf(request);
  let merge: Merge | undefined;
  if (bytes === undefined) fields.refuse("patch", "is required; an empty one is a patch");
  else merge = createMerge(fields, "patch", bytes);
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  const expiry = fields.expiry("expiry", request.expiry);
  const requestId = attempt("Patch", fields, request);
  const answersState = request.returnState;
  return { kind: "patch", key, merge: settled(fields, merge), expectedVersion, expiry, requestId, answersState };
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
  const requestId = attempt("AppendMessages", fields, request);
  fields.done();
  return { kind: "append", key, messages, create, merge, expectedVersion, expiry, requestId };
}

export function deleteOrder(request: DeleteRequest): OrderOf<"delete"> {
  const fields = begin(request);
  const key = fields.key(request);
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  fields.done();
  return { kind: "delete", key, expectedVersion, requestId: "" };
}

export function extendOrder(request: ExtendTtlRequest): OrderOf<"extend"> {
  const fields = new ConversationFields();
  const key = fields.key(request);
  const expiry = fields.expiry("expiry", request.expiry) ?? { ttlMs: undefined, sliding: undefined };
  fields.done();
  return { kind: "extend", key, expiry, requestId: "" };
}

export function restoreOrder(request: RestoreRequest): OrderOf<"restore"> {
  const fields = begin(request);
  const key = fields.key(request);
  if (request.version === 0n) fields.refuse("version", "is required");
  const expectedVersion = fields.expectedVersion(request.expectedVersion, false);
  const requestId = attempt("Restore", fields, request);
  fields.done();
  const { keepMessages } = request;
  const version = versionFrom(request.version);
  return { kind: "restore", key, version, keepMessages, expectedVersion, requestId, answersState: true };
}

function begin({ fencing }: Pick<SaveRequest, "fencing">): ConversationFields {
  requireNoFencing(fencing);
  return new ConversationFields();
}

/** The name of an attempt. That of another RPC is another attempt: its answer would say something else. */
export function attempt(
  rpc: string,
  fields: ConversationFields,
  { requestId }: { readonly requestId: string },
): string {
  return fields.requestId(requestId) === "" ? "" : `${rpc} ${requestId}`;
}

/** What was checked, once nothing was refused. */
function settled<T>(fields: ConversationFields, checked: T | undefined): T {
  fields.done();
  if (checked === undefined) throw new Error("something was refused without a reason");
  return checked;
}
