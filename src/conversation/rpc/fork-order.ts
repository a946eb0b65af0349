import { createHash, randomUUID } from "node:crypto";
import type { ConversationStateServiceForkRequest as ForkRequest } from "../../gen/holdfast/v1/conversation_pb.js";
import type { ConversationKey, ExpiryOrder } from "../record/conversation.ts";
import { ConversationFields, LIMITS, versionFrom } from "../record/fields.ts";
import { type Attempt, forkAttempt } from "./attempts.ts";

/** What a request to fork orders, checked. */
export interface ForkOrder extends Attempt {
  readonly source: ConversationKey;
  /** 0: the current one. */
  readonly version: number;
  /** As the request says it. */
  readonly askedVersion: bigint;
  /** Of the copy. */
  readonly key: ConversationKey;
  readonly expiry: ExpiryOrder | undefined;
}

export function forkOrder(request: ForkRequest): ForkOrder {
  const fields = new ConversationFields();
  const source = fields.key(request);
  const collection = fields.collection("target_collection", request.targetCollection, source.collection);
  fields.text("target_id", request.targetId, LIMITS.idBytes, true);
  const expiry = fields.expiry("expiry", request.expiry);
  fields.requestId(request.requestId);
  fields.done();
  const attempt = forkAttempt(request, { source, expiry });
  const id = request.targetId === "" ? givenId(source, attempt.requestId) : request.targetId;
  const { version: askedVersion } = request;
  return { source, version: versionFrom(askedVersion), askedVersion, key: { collection, id }, expiry, ...attempt };
}

/** The id of a copy that was given none. A retry has to come upon the same one, where the first answer is kept. */
function givenId({ collection, id }: ConversationKey, requestId: string): string {
  if (requestId === "") return randomUUID();
  const hash = createHash("sha256").update(`${collection}/${id}/${requestId}`).digest("hex");
  const [one, two, three, four, five] = [
    hash.slice(0, 8),
    hash.slice(8, 12),
    hash.slice(13, 16),
    hash.slice(17, 20),
    hash.slice(20, 32),
  ];
  // Of version 8: made in a way of our own.
  return `${one}-${two}-8${three}-8${four}-${five}`;
}
