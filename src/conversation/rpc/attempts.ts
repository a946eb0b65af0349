import type {
  ConversationMessage,
  ConversationStateServiceForkRequest as ForkRequest,
  ConversationStateServiceRestoreRequest as RestoreRequest,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { type NamedRequest, namedRequest } from "../../infra/named-request.ts";
import type { Order, OrderOf } from "../change/order.ts";
import { canonicalStruct } from "../record/canonical-struct.ts";
import type { ConversationKey, ExpiryOrder, Message } from "../record/conversation.ts";
import type { PatchMerge } from "../record/merge.ts";
import type { AppendRequest, PatchRequest, SaveRequest } from "../record/requests.ts";

/**
 * What the request_id of a write names: one request, of one RPC, at one conversation (of Fork: the copy). The same name for another RPC,
 * or at another conversation, is another one. The same name there for a request with anything else in it is refused, apart from
 * what is no content: how maps are ordered, the places of messages, and their times, which a client may take anew.
 */
export interface Attempt {
  /** As it is remembered, with the RPC; empty when the request has no name. */
  readonly requestId: string;
  readonly named: NamedRequest | undefined;
}

type Asked<Kind extends Order["kind"], Field extends keyof OrderOf<Kind>> = Pick<OrderOf<Kind>, Field>;

export function saveAttempt(request: SaveRequest, order: Asked<"save", "state" | "messages" | "expiry">): Attempt {
  return attemptOf("Save", request, () => [
    plain(request.expectedVersion, order.expiry, request.returnConflict),
    canonicalStruct(order.state.bytes),
    saidIn(request.messages, order.messages),
  ]);
}

export function patchAttempt(
  request: PatchRequest,
  { merge, expiry }: Asked<"patch", "expiry"> & { readonly merge: PatchMerge },
): Attempt {
  return attemptOf("Patch", request, () => [
    plain(request.expectedVersion, expiry, request.returnState, request.returnConflict),
    canonicalStruct(merge.patch),
  ]);
}

export function appendAttempt(
  request: AppendRequest,
  { messages, merge, expiry }: Asked<"append", "messages" | "expiry"> & { readonly merge: PatchMerge | undefined },
): Attempt {
  return attemptOf("AppendMessages", request, () => [
    plain(request.expectedVersion, expiry, request.create),
    saidIn(request.messages, messages),
    // An empty patch is a write all the same.
    ...(merge === undefined ? [] : [canonicalStruct(merge.patch)]),
  ]);
}

export function restoreAttempt(request: RestoreRequest): Attempt {
  return attemptOf("Restore", request, () => [
    plain(request.expectedVersion, undefined, String(request.version), request.keepMessages),
  ]);
}

export function forkAttempt(
  request: ForkRequest,
  { source, expiry }: { readonly source: ConversationKey; readonly expiry: ExpiryOrder | undefined },
): Attempt {
  return attemptOf("Fork", request, () => [
    plain(undefined, expiry, source.collection, source.id, String(request.version)),
  ]);
}

function attemptOf(
  rpc: string,
  { requestId }: { readonly requestId: string },
  fields: () => readonly (string | Uint8Array)[],
): Attempt {
  const named = namedRequest(requestId, rpc, fields);
  return { requestId: named === undefined ? "" : `${rpc} ${requestId}`, named };
}

/** What is short in a request. */
function plain(
  expectedVersion: bigint | undefined,
  expiry: ExpiryOrder | undefined,
  ...others: readonly (string | boolean)[]
): string {
  return JSON.stringify([expectedVersion?.toString() ?? null, expiry ?? null, ...others]);
}

/** The messages of a request, which were checked: what each says, under which id if it was given one. */
function saidIn(given: readonly ConversationMessage[], checked: readonly Message[]): string {
  return JSON.stringify(
    checked.map(({ contentHash }, at) => [given[at]?.id ?? "", Buffer.from(contentHash).toString("base64")]),
  );
}
