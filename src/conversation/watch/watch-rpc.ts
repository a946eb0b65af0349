import type { ConversationStateService } from "../../gen/holdfast/v1/conversation_pb.js";
import type { Rpcs, ServedBy } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import { type PolicyFor, presenceOf } from "../record/conversation.ts";
import { presenceFor } from "../record/summary.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import { leavesState } from "./change.ts";
import type { ChangeBell } from "./change-bell.ts";
import type { Changes } from "./changes.ts";
import { type AppendedMessage, type Contents, MOST_MESSAGES } from "./contents.ts";
import { createFeed } from "./feed.ts";
import { followChanges, type WatchEvent } from "./follow-changes.ts";
import { changeReply, eventReply, type ToldChange } from "./replies.ts";
import { type WatchOrder, watchOrderOf } from "./requests.ts";
import { shareContents } from "./shared-contents.ts";
import { begin } from "./start.ts";
import type { WindowLimits } from "./window.ts";

export interface WatchRpcsOptions {
  readonly changes: Changes;
  readonly contents: Contents;
  /** Where the truth is, as replies say. */
  readonly servedBy: ServedBy;
  /** Rung by the ledgers of all instances. */
  readonly bell: Pick<ChangeBell, "onRing">;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
  readonly instanceId: string;
  /** How much of what was committed last is in memory, for all watchers together. Who is slower than that is fed from SQL. */
  readonly window?: WindowLimits;
}

/** States and messages of recent changes that are kept for watchers who come for them next. */
const SHARED_BYTES = 16 * 1024 * 1024;
/** A state and the messages sent with it. */
const MOST_BYTES = 4 * 1024 * 1024;

/** Watch: changes as they are committed, on any instance. */
export function createWatchRpcs({
  changes,
  contents: unshared,
  servedBy,
  bell,
  policyFor,
  clock,
  instanceId,
  window,
}: WatchRpcsOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "watch">> {
  const contents = shareContents(unshared, SHARED_BYTES);
  const feed = createFeed({ changes, bell, ...(window && { window }) });

  return {
    async *watch(request, call) {
      const order = watchOrderOf(request);
      const { scope, heartbeatMs } = order;
      const policy = policyFor(scope.collection);
      if (policy === undefined) throw new UnknownCollectionError(scope.collection);
      const begun = await begin(changes, scope, order.start);
      call.servedBy(servedBy);
      const presence = presenceOf(begun.held, clock.now() * 1000, policy.tombstoneMs);
      const { log } = begun;
      yield eventReply(order.tokenOf({ log, place: begun.at }), {
        case: "opened",
        value: {
          $typeName: "holdfast.v1.ConversationWatchOpened",
          instanceId,
          presence: scope.id === undefined ? 0 : presenceFor(presence),
          version: presence === "live" ? BigInt(begun.held?.version ?? 0) : 0n,
        },
      });
      const { signal } = call;
      for await (const event of followChanges({ feed, changes, scope, begun, heartbeatMs, signal })) {
        yield await replyTo(event, order.tokenOf({ log, place: event.at }), order, contents);
      }
    },
  };
}

async function replyTo(event: WatchEvent, token: string, order: WatchOrder, contents: Contents) {
  switch (event.kind) {
    case "change":
      return changeReply(token, await fill(event, order, contents));
    case "heartbeat":
      return eventReply(token, { case: "heartbeat", value: { $typeName: "holdfast.v1.ConversationWatchHeartbeat" } });
    case "compacted":
      return eventReply(token, {
        case: "compacted",
        value: { $typeName: "holdfast.v1.ConversationWatchCompacted", reason: event.reason },
      });
  }
}

async function fill(
  { change, told }: Extract<WatchEvent, { kind: "change" }>,
  { includeState, includeMessages }: WatchOrder,
  contents: Contents,
): Promise<ToldChange> {
  const wantsState = includeState && leavesState(told);
  const [state, messages] = await Promise.all([
    wantsState ? contents.state(change) : undefined,
    includeMessages ? contents.messages(change) : [],
  ]);
  return {
    ...{ change, told, state, stateSuperseded: wantsState && state === undefined },
    messages: messagesWithin(messages, Math.min(MOST_MESSAGES.bytes, MOST_BYTES - (state?.length ?? 0))),
  };
}

function messagesWithin(messages: readonly AppendedMessage[], mostBytes: number): readonly AppendedMessage[] {
  let bytes = 0;
  const end = messages.findIndex(({ body }) => {
    bytes += body.length;
    return bytes > mostBytes;
  });
  return end === -1 ? messages : messages.slice(0, end);
}
