import type { Clock } from "../../infra/clock.ts";
import { type NamedRequest, RequestIdReusedError } from "../../infra/named-request.ts";
import { LockAttemptOverError, LockAuthorityUnavailableError } from "../failures.ts";
import { decideTake, type TakeOrder } from "../record/decide.ts";
import type { LockRecord } from "../record/grant.ts";
import { tokenAfter } from "../record/token.ts";
import { clockMargin } from "../wait/valid-for.ts";
import type { Taken } from "./authority.ts";
import type { Answer } from "./redlock-answer.ts";
import { amendment, forgotten, leaseOf, repair, writeOf } from "./redlock-change.ts";
import type { Claim } from "./redlock-claim.ts";
import { lockKeys } from "./redlock-keys.ts";
import type { Register } from "./redlock-register.ts";
import { RETRACT, SETTLE } from "./redlock-scripts.ts";
import { holderSeen, newestSeen, nowOf, recordOf, type Seen, textOf, tokenBase } from "./redlock-view.ts";

export interface TakeOptions {
  readonly register: Register;
  /** The epoch below which nothing is granted. */
  readonly epoch: () => Promise<number>;
  readonly clock: Clock;
}

/** Tries once to take a lock, in two rounds: a claim on a majority, and the grant on a majority. Undefined: others got in the way. */
export function createTake({ register, epoch, clock }: TakeOptions): (order: TakeOrder) => Promise<Taken | undefined> {
  async function take(order: TakeOrder): Promise<Taken | undefined> {
    const { name, instanceId, waits, request } = order;
    const claim = await register.claim(lockKeys(name, request?.id), instanceId, waits);
    try {
      const { answers, isMine } = claim;
      const decided = decide(order, answers, isMine, Math.max(tokenBase(answers).epoch, await epoch()));
      if (decided === undefined) repair(register, name, answers);
      if (decided === undefined || "kind" in decided) {
        claim.drop();
        return decided;
      }
      const { record, again } = decided;
      return again === undefined ? await settle(claim, record) : await giveAgain(again, record);
    } catch (error) {
      claim.drop();
      throw error;
    }
  }

  /** The second round: what makes the token this grant's alone. */
  async function settle({ id }: Claim, record: LockRecord): Promise<Taken | undefined> {
    const { grant } = record;
    const began = clock.monotonic();
    const write = writeOf(SETTLE, { id, rev: 1, record, forMs: grant.ttlMs });
    const giveUp = () => {
      const ended = { ...record, grant: { ...grant, end: "released", endMs: grant.acquireMs } as const };
      register.spread(forgotten(writeOf(RETRACT, { id, rev: 2, record: ended, forMs: 0 })));
    };
    try {
      const wrote = await register.write(write);
      if (wrote.kind === "refused") {
        giveUp();
        return undefined;
      }
    } catch (error) {
      giveUp();
      throw error;
    }
    if (clock.monotonic() - began < grant.ttlMs - clockMargin(grant.ttlMs)) {
      return { kind: "granted", lease: { grant, remainingMs: grant.ttlMs } };
    }
    giveUp();
    throw new LockAuthorityUnavailableError("the masters took longer to answer than the lease lasts");
  }

  /** To a retry: the grant that its first attempt was given. That a majority has it must be certain first. */
  async function giveAgain(seen: Seen, { grant: { streamId }, ...rest }: LockRecord): Promise<Taken | undefined> {
    const { expireMs, endMs, ...told } = textOf(seen).grant;
    const record = { ...rest, grant: { ...told, streamId, expireMs, endMs } };
    const wrote = await register.write(amendment(seen, record, seen.leftMs));
    if (wrote.kind === "refused") return undefined;
    return { kind: "granted", lease: { grant: record.grant, remainingMs: wrote.leftMs } };
  }

  return take;
}

type Decided = Taken | { readonly record: LockRecord; readonly again: Seen | undefined } | undefined;

/** What the rules say. Undefined: others try to take it too. */
function decide(order: TakeOrder, answers: readonly Answer[], isMine: boolean, epoch: number): Decided {
  const { name, request } = order;
  // With a majority for this attempt, whatever a minority still has in force is over.
  const seen = isMine ? newestSeen(answers) : holderSeen(answers);
  if (seen === undefined && !isMine) return undefined;
  const nowMs = nowOf(answers);
  const before = seen && recordOf(isMine ? over(seen) : seen, answers, nowMs);
  const token = tokenAfter(tokenBase(answers).token, epoch);
  const decision = decideTake(before, order, wasGranted(answers, request), nowMs, token);
  if (decision.kind === "yield") return decision;
  if (decision.kind === "attempt_over") throw new LockAttemptOverError(name, request?.id ?? "");
  if (decision.kind === "request_reused") throw new RequestIdReusedError(request?.id ?? "");
  if (seen !== undefined && decision.kind === "held") return { kind: "held", holder: leaseOf(seen) };
  return { record: decision.record, again: isMine ? undefined : seen };
}

function wasGranted(answers: readonly Answer[], request: NamedRequest | undefined): boolean {
  if (request === undefined) return false;
  const known = answers.filter(({ attempt }) => attempt !== "");
  if (known.some(({ attempt }) => attempt !== request.meaning)) throw new RequestIdReusedError(request.id);
  return known.length > 0;
}

function over(seen: Seen): Seen {
  return { ...seen, leftMs: Math.min(0, seen.leftMs) };
}
