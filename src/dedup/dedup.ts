import { UnavailableError } from "../infra/failure.ts";
import type { Copies, Copy } from "./copies/copies.ts";
import type { ClaimId } from "./record/claim.ts";
import type { ClaimOrder, CompleteOrder, ReleaseOrder } from "./record/decide.ts";
import { duplicateBytes } from "./rpc/claim-bytes.ts";
import type { Claimed, Completed, Found, Truth } from "./truth/truth.ts";

export type Answer =
  /** Of a copy: the serialized reply. */
  | { readonly kind: "copy"; readonly reply: Uint8Array; readonly degraded: boolean }
  | { readonly kind: "duplicate"; readonly reply: Uint8Array }
  | Exclude<Claimed, { readonly kind: "duplicate" }>;

/** Claims over the truth and its copies. */
export interface Dedup {
  claim(order: ClaimOrder): Promise<Answer>;
  complete(order: CompleteOrder): Promise<Completed>;
  release(order: ReleaseOrder): Promise<boolean>;
  get(id: ClaimId): Promise<Found | undefined>;
}

export interface DedupParts {
  readonly truth: Truth;
  readonly copies: Copies;
}

export function createDedup({ truth, copies }: DedupParts): Dedup {
  async function claim(order: ClaimOrder): Promise<Answer> {
    const copy = await copies.read(order.id);
    const told = copy && !isRetryOf(order, copy) ? copy : undefined;
    if (told?.isCertain) return { kind: "copy", reply: told.reply, degraded: false };
    const moment = copies.moment(order.id);
    let claimed: Claimed;
    try {
      claimed = await truth.claim(order);
    } catch (error) {
      // What was completed when the truth was last heard of. Who might be the first has to wait for it.
      if (told === undefined || !(error instanceof UnavailableError)) throw error;
      return { kind: "copy", reply: told.reply, degraded: true };
    }
    if (claimed.kind === "first") {
      const { claim: made, nowMs } = claimed;
      if (made.status === "completed") copies.fill(moment, made, nowMs, duplicateBytes(made, undefined));
      return claimed;
    }
    if (claimed.kind === "in_progress") return claimed;
    const reply = duplicateBytes(claimed.claim, claimed.value);
    copies.fill(moment, claimed.claim, claimed.nowMs, reply);
    return { kind: "duplicate", reply };
  }

  async function complete(order: CompleteOrder): Promise<Completed> {
    const moment = copies.moment(order.id);
    const done = await truth.complete(order);
    // Completed before: its result is another one, perhaps.
    if (moment === undefined || !done.completed || done.again) return done;
    const { claim: made } = done;
    copies.fill(moment, made, made.completeMs ?? 0, duplicateBytes(made, order.result?.value));
    return done;
  }

  /** First the copies go, then the claim: whoever is told of a copy is told of what is still there. */
  async function release(order: ReleaseOrder): Promise<boolean> {
    if (!order.forgetCompleted) return truth.release(order);
    for (;;) {
      const isCompleted = await isCompletedBy(order);
      if (isCompleted) {
        await truth.forbidCopies(order.id, order.token);
        await copies.forget(order.id, order.token);
      }
      // Only what was seen to be completed may be forgotten as that: otherwise its copies are there still.
      if (await truth.release({ ...order, forgetCompleted: isCompleted })) return true;
      if (isCompleted || !(await isCompletedBy(order))) return false;
    }
  }

  async function isCompletedBy({ id, token }: ReleaseOrder): Promise<boolean> {
    const found = await truth.get(id);
    return found?.claim.status === "completed" && found.claim.token === token;
  }

  return { claim, complete, release, get: truth.get };
}

/** The caller may have been told that he is the first, which only the truth may say again. */
function isRetryOf({ request }: ClaimOrder, { requestId }: Copy): boolean {
  return requestId !== "" && requestId === request?.id;
}
