import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConversationConflictSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { Failure } from "../../infra/failure.ts";
import { keyIn } from "../change/absence.ts";
import type { Conflict } from "../change/order.ts";
import type { ConversationKey } from "../record/conversation.ts";
import { field, messageOf } from "../record/conversation-bytes.ts";
import { presenceFor } from "../record/summary.ts";

/** Error details travel in trailers, for which some clients have no more than 8 KiB. */
const MOST_STATE_BYTES = 4096;

const { number: CURRENT_STATE } = ConversationConflictSchema.field.currentState;

/** A write that expected another version, as the request names it. */
export interface RefusedWrite {
  readonly key: ConversationKey;
  readonly expectedVersion: bigint;
  readonly conflict: Conflict;
}

/** A serialized ConversationConflict with the whole state. */
export function conflictBytes(refused: RefusedWrite): Uint8Array {
  return conflictWith(refused, refused.conflict.state);
}

function conflictWith({ key, expectedVersion, conflict }: RefusedWrite, state: Uint8Array | undefined): Uint8Array {
  const { held, presence } = conflict;
  const head = create(ConversationConflictSchema, {
    ...{ collection: key.collection, id: key.id, expectedVersion },
    presence: presenceFor(presence),
    currentVersion: BigInt(held?.version ?? 0),
    currentMessageCount: BigInt(held?.messageCount ?? 0),
    stateOmitted: state === undefined && conflict.state !== undefined,
  });
  const bytes = toBinary(ConversationConflictSchema, head);
  return state === undefined ? bytes : messageOf(bytes, field(CURRENT_STATE, state));
}

const PRESENCES = {
  live: "",
  expired: "the conversation has expired",
  deleted: "the conversation was deleted; Save with expected_version 0 creates it again",
  never: "the conversation is not there",
} as const;

/** The failure of a write that is not to be answered with the conflict. Its message is short, as the trailers have to be. */
export function conflictFailure(refused: RefusedWrite): Failure {
  const { key, expectedVersion, conflict } = refused;
  const { state, presence, held } = conflict;
  const bytes = conflictWith(refused, state !== undefined && state.length <= MOST_STATE_BYTES ? state : undefined);
  const expected = expectedVersion === 0n ? "no conversation" : `version ${expectedVersion}`;
  const is = held === undefined ? PRESENCES[presence] : `the current version is ${held.version}`;
  return new Failure("conflict", "VERSION_CONFLICT", `expected_version: ${expected} was expected, but ${is}`, {
    metadata: {
      ...keyIn(key),
      expected_version: String(expectedVersion),
      current_version: String(held?.version ?? 0),
    },
    detail: { desc: ConversationConflictSchema, message: fromBinary(ConversationConflictSchema, bytes) },
  });
}
