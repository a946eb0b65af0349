import type { ConversationStateService } from "../../gen/holdfast/v1/conversation_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Database } from "../../infra/database.ts";
import { Failure } from "../../infra/failure.ts";
import type { Fence, Fences } from "../../infra/fencing.ts";
import type { Order, Outcome } from "../change/order.ts";
import type { CarriedOut, Ledger } from "../ledger/ledger.ts";
import { conflictFailure, type RefusedWrite } from "./write-conflict.ts";
import { appendOrder, deleteOrder, extendOrder, patchOrder, restoreOrder, saveOrder } from "./write-orders.ts";
import {
  appendReply,
  conversationReply,
  deleteReply,
  extendReply,
  patchConflictReply,
  patchReply,
  saveConflictReply,
  saveReply,
} from "./write-replies.ts";

export interface WriteRpcsOptions {
  readonly ledger: Pick<Ledger, "carryOut">;
  readonly fences: Pick<Fences, "admit">;
  /** Where the truth is, as replies say. */
  readonly kind: Database["kind"];
  readonly clock: Clock;
  /** Called for every write that is refused for its expected_version. */
  readonly onConflict: (collection: string) => void;
}

type WriteRpc = "save" | "patch" | "appendMessages" | "delete" | "extendTtl" | "restore";
type Done = Extract<Outcome, { kind: "done" }>;
type Absent = Extract<Outcome, { kind: "absent" }>;

/** The RPCs that write one conversation. */
export function createWriteRpcs(
  options: WriteRpcsOptions,
): Required<Pick<Rpcs<typeof ConversationStateService>, WriteRpc>> {
  const { ledger, fences, kind, clock, onConflict } = options;

  async function carryOut(order: Order, call: CallContext): Promise<CarriedOut> {
    const outcome = await ledger.carryOut(order.fence === undefined ? order : await admitted(order, order.fence));
    call.servedBy(kind);
    if (outcome.degraded) call.degraded();
    if (outcome.kind === "conflict") onConflict(order.key.collection);
    return outcome;
  }

  /** A retry is told what became of the attempt, also when the lock is another's by now: so it goes on with the objection. */
  async function admitted(order: Order, fence: Fence): Promise<Order> {
    try {
      await fences.admit(fence);
      return order;
    } catch (error) {
      if (order.requestId === "" || !(error instanceof Failure)) throw error;
      return { ...order, objection: error };
    }
  }

  /** Carries out what is done, or absent, unless another version was expected. */
  async function carryOutPlainly(order: Order, request: Expecting, call: CallContext): Promise<Done | Absent> {
    const outcome = await carryOut(order, call);
    if (outcome.kind === "conflict") throw conflictFailure(refusedOf(order, request, outcome));
    return outcome;
  }

  return {
    async save(request, call) {
      const order = saveOrder(request, nowUs(clock));
      const outcome = await carryOut(order, call);
      if (outcome.kind !== "conflict") return saveReply(doneOf(outcome));
      const refused = refusedOf(order, request, outcome);
      if (request.returnConflict) return saveConflictReply(refused);
      throw conflictFailure(refused);
    },

    async patch(request, call) {
      const order = patchOrder(request);
      const outcome = await carryOut(order, call);
      if (outcome.kind !== "conflict") return patchReply(doneOf(outcome), request.returnState);
      const refused = refusedOf(order, request, outcome);
      if (request.returnConflict) return patchConflictReply(refused);
      throw conflictFailure(refused);
    },

    async appendMessages(request, call) {
      return appendReply(doneOf(await carryOutPlainly(appendOrder(request, nowUs(clock)), request, call)));
    },

    async delete(request, call) {
      return deleteReply(await carryOutPlainly(deleteOrder(request), request, call));
    },

    async extendTtl(request, call) {
      return extendReply(await carryOutPlainly(extendOrder(request), {}, call));
    },

    async restore(request, call) {
      return conversationReply(doneOf(await carryOutPlainly(restoreOrder(request), request, call)));
    },
  };
}

interface Expecting {
  readonly expectedVersion?: bigint | undefined;
}

function refusedOf(
  { key }: Order,
  { expectedVersion = 0n }: Expecting,
  { conflict }: Extract<Outcome, { kind: "conflict" }>,
): RefusedWrite {
  return { key, expectedVersion, conflict };
}

function doneOf(outcome: Done | Absent): Done {
  if (outcome.kind === "done") return outcome;
  throw new Error("a write that needs no conversation was told that there is none");
}

function nowUs(clock: Clock): number {
  return clock.now() * 1000;
}
