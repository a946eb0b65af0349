import type { ConversationStateService } from "../../gen/holdfast/v1/conversation_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Database } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { notThere, versionNotKept } from "../change/absence.ts";
import { refuseTaken } from "../change/adopt.ts";
import { answerAgain } from "../change/answer.ts";
import type { OrderOf } from "../change/order.ts";
import type { CarriedOut, Ledger } from "../ledger/ledger.ts";
import type { Truth } from "../read/truth.ts";
import {
  type ConversationKey,
  type Held,
  type PolicyFor,
  type Presence,
  presenceOf,
  type State,
} from "../record/conversation.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import type { ForkCopies, PreparedGeneration } from "./fork-copies.ts";
import { type ForkOrder, forkOrder } from "./fork-order.ts";
import { conversationReply } from "./write-replies.ts";

export interface ForkRpcOptions {
  readonly ledger: Pick<Ledger, "carryOut">;
  readonly truth: Pick<Truth, "held" | "read" | "readVersion">;
  readonly copies: ForkCopies;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
  /** Where the truth is, as replies say. */
  readonly kind: Database["kind"];
}

/** A version of the original, as it is copied. */
interface Original {
  readonly held: Held;
  readonly version: number;
  readonly state: State;
  readonly messageCount: number;
}

/** Fork: the messages are copied beforehand, out of everybody's sight; then one order makes a conversation of them. */
export function createForkRpc(options: ForkRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "fork">> {
  const { ledger, truth, copies, policyFor, clock, kind } = options;

  function presenceNow({ collection }: ConversationKey, held: Held | undefined): Presence | undefined {
    const policy = policyFor(collection);
    if (policy === undefined) throw new UnknownCollectionError(collection);
    return presenceOf(held, clock.now() * 1000, policy.tombstoneMs);
  }

  function mustBeThere(key: ConversationKey, held: Held | undefined): Held {
    const presence = presenceNow(key, held);
    if (held !== undefined && presence === "live") return held;
    throw notThere(key, presence === "live" ? undefined : presence);
  }

  async function readOriginal({ source, version, askedVersion }: ForkOrder): Promise<Original> {
    const known = await truth.read(source);
    const held = mustBeThere(source, known?.held);
    if (version === 0 || version === held.version) {
      if (known?.state === undefined) throw new Error(`the state of "${source.id}" is missing`);
      const { userId, status, complexityLevel, confidenceScore, messageCount } = held;
      const state = { userId, status, complexityLevel, confidenceScore, bytes: known.state };
      return { held, version: held.version, state, messageCount };
    }
    const earlier = await truth.readVersion(held, version);
    if (earlier === undefined) throw versionNotKept(source, askedVersion);
    const { userId, status, complexityLevel, confidenceScore, messageCount } = earlier.kept;
    const state = { userId, status, complexityLevel, confidenceScore, bytes: earlier.state };
    return { held, version, state, messageCount };
  }

  async function copyMessages(original: Original, to: PreparedGeneration, signal: AbortSignal): Promise<void> {
    const { held, version, messageCount } = original;
    const { collection, id, generation } = held;
    const copied = await copies.copy({ collection, id, generation, version }, to, signal);
    // Messages are only ever taken away from a version: as many as it had are those it had.
    if (copied === messageCount) return;
    const now = mustBeThere(held, (await truth.read(held))?.held);
    throw now.generation === generation ? versionNotKept(held, version) : notThere(held, undefined);
  }

  async function fork(order: ForkOrder, signal: AbortSignal): Promise<CarriedOut> {
    const { key, requestId, named, expiry } = order;
    // Before the answer, so that the one whom a retry finds in its place is not the first attempt, which ended in between.
    const there = await truth.held(key);
    const answered = requestId === "" ? undefined : await copies.answered(key, requestId);
    if (answered !== undefined) return answerAgain(order, answered);
    const original = await readOriginal(order);
    const { held, version, state, messageCount } = original;
    // Asked before all the work as well as at its end.
    refuseTaken(key, presenceNow(key, there));
    const prepared = await copies.prepare(key);
    const { generation } = prepared;
    let adopted = false;
    try {
      await copyMessages(original, prepared, signal);
      const origin = { collection: held.collection, id: held.id, version };
      const adopt: OrderOf<"adopt"> = {
        ...{ kind: "adopt", key, requestId, named, answersState: true },
        ...{ generation, state, messageCount, origin, originGeneration: held.generation, expiry },
      };
      const outcome = await ledger.carryOut(adopt);
      adopted = outcome.kind === "done" && outcome.held.generation === generation;
      return outcome;
    } finally {
      // While SQL is away nothing can be removed, and the caller has to hear of that, not of this.
      if (!adopted) await copies.discard(prepared).catch(passOverAbsence);
    }
  }

  return {
    async fork(request, call: CallContext) {
      const outcome = await fork(forkOrder(request), call.signal);
      call.servedBy(kind);
      if (outcome.degraded) call.degraded();
      if (outcome.kind !== "done") throw new Error("a fork was neither made nor refused");
      return conversationReply(outcome);
    },
  };
}

/** What could not be discarded is removed some time later. */
function passOverAbsence(error: unknown): void {
  if (!(error instanceof UnavailableError)) throw error;
}
