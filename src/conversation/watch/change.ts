import { fromBinary } from "@bufbuild/protobuf";
import {
  ConversationSummarySchema,
  ConversationChange_Kind as ToldKind,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { KIND, type Kind } from "../ledger/book.ts";
import type { ConversationKey } from "../record/conversation.ts";
import { type Filter, type FilteredFacts, matches } from "../record/filter.ts";

/** A change as it was committed. Nothing of it ever changes. */
export interface Change extends ConversationKey {
  /** Its place among all changes: without gaps, in the order of the commits. */
  readonly seq: number;
  readonly kind: Kind;
  readonly version: number;
  readonly previousVersion: number;
  readonly generation: number;
  /** The version that brought the state. */
  readonly stateVersion: number;
  /** The places of the messages it appended. */
  readonly positions: { readonly first: number; readonly last: number } | undefined;
  /** What a filter compares with, before the change. Undefined: there was nothing. */
  readonly before: FilteredFacts | undefined;
  /** A serialized ConversationSummary: after the change, or before it where that removed the conversation. */
  readonly summary: Uint8Array;
  readonly changedUs: number;
}

/** Which changes somebody watches. */
export interface Scope {
  readonly collection: string;
  /** Undefined: all of the collection. */
  readonly id: string | undefined;
  /** Undefined: whatever they are. */
  readonly filter: Filter | undefined;
}

/** As what a watcher of the scope hears of a change that is in it; undefined when it does not concern them. */
export function toldKind({ filter }: Scope, change: Change): ToldKind | undefined {
  if (filter === undefined) return change.kind;
  const matchedBefore = change.before !== undefined && matches(filter, change.before);
  const isGone = change.kind === KIND.deleted || change.kind === KIND.expired;
  if (isGone ? matchedBefore : matches(filter, factsOf(change))) return change.kind;
  return matchedBefore ? ToldKind.LEFT : undefined;
}

/** Whether the conversation, and its state, is there for a watcher who was told so. */
export function leavesState(kind: ToldKind): boolean {
  return kind !== ToldKind.DELETED && kind !== ToldKind.EXPIRED && kind !== ToldKind.LEFT;
}

/** Many watchers with a filter ask the same change. */
const known = new WeakMap<Change, FilteredFacts>();

function factsOf(change: Change): FilteredFacts {
  const found = known.get(change);
  if (found !== undefined) return found;
  const { userId, status } = fromBinary(ConversationSummarySchema, change.summary);
  const facts = { userId, status };
  known.set(change, facts);
  return facts;
}
