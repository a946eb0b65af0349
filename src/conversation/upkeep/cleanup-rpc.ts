import { create } from "@bufbuild/protobuf";
import {
  type ConversationKey,
  ConversationKeySchema,
  type ConversationStateService,
  ConversationStateServiceCleanupResponseSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { CallContext, Rpcs, ServedBy } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { PolicyFor } from "../record/conversation.ts";
import { ConversationFields } from "../record/fields.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import type { Removal } from "./removal.ts";

const LIMIT = 100_000;
const LIMIT_DEFAULT = 10_000;
/** How many of those that were removed are named. */
const NAMED = 1_000;
/** For the reply to reach its caller. */
const RESERVE_MS = 50;

export interface CleanupRpcOptions {
  readonly removal: Removal;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
  readonly servedBy: ServedBy;
}

/** The RPC that removes now what the sweeper would remove soon. */
export function createCleanupRpc({
  removal,
  policyFor,
  clock,
  servedBy,
}: CleanupRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "cleanup">> {
  return {
    async cleanup(request, call) {
      const fields = new ConversationFields();
      const only = request.collection === undefined ? undefined : fields.collection("collection", request.collection);
      if (request.limit < 0) fields.refuse("limit", "must not be negative");
      fields.done();
      call.servedBy(servedBy);
      const named: ConversationKey[] = [];
      const removed = await removal({
        includes: (collection) => (only === undefined ? call.caller.mayUse(collection) : collection === only),
        limit: request.limit === 0 ? LIMIT_DEFAULT : Math.min(request.limit, LIMIT),
        dryRun: request.dryRun,
        goOn: untilTheEndOf(call, clock),
        removed: (key) => {
          if (named.length < NAMED) named.push(create(ConversationKeySchema, key));
        },
        degraded: () => call.degraded(),
      });
      // One that the configuration no longer admits is here to be cleaned up; one of which there is nothing is a typing error.
      const nothing = removed.conversations + removed.tombstones === 0 && !removed.more;
      if (only !== undefined && nothing && policyFor(only) === undefined) throw new UnknownCollectionError(only);
      return create(ConversationStateServiceCleanupResponseSchema, {
        removedConversations: BigInt(removed.conversations),
        removedMessages: BigInt(removed.messages),
        removedTombstones: BigInt(removed.tombstones),
        removed: named,
        more: removed.more,
      });
    },
  };
}

/** Whether there is time for another portion that takes as long as the longest so far. */
function untilTheEndOf({ deadline, signal }: CallContext, clock: Clock): () => boolean {
  let since: number | undefined;
  let longest = 0;
  return () => {
    signal.throwIfAborted();
    const now = clock.now();
    longest = Math.max(longest, now - (since ?? now));
    since = now;
    return deadline === undefined || now + longest + RESERVE_MS < deadline;
  };
}
