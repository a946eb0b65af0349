import { LockAuthority } from "../../src/gen/holdfast/v1/lock_pb.js";
import { type NamedRequest, RequestIdReusedError } from "../../src/infra/named-request.ts";
import type { Authority, Lease } from "../../src/lock/authority/authority.ts";
import { LockAttemptOverError } from "../../src/lock/failures.ts";
import { decideRelease, decideRenew, decideTake } from "../../src/lock/record/decide.ts";
import { isLive, type LockRecord } from "../../src/lock/record/grant.ts";

/**
 * The rules and nothing else, in memory, with a clock that stands unless a test moves it: what other authorities are compared
 * with.
 */
export function createReferenceAuthority(nowMs: () => number): Authority {
  const records = new Map<string, LockRecord>();
  const attempts = new Map<string, { readonly meaning: string; readonly text: string }>();
  let tokens = 0;

  const keyOf = (name: string, id: string) => JSON.stringify([name, id]);
  const leaseOf = ({ grant }: LockRecord): Lease => ({ grant, remainingMs: Math.max(0, grant.expireMs - nowMs()) });
  const live = (record: LockRecord | undefined) =>
    record && isLive(record.grant, nowMs()) ? leaseOf(record) : undefined;

  function known(name: string, request: NamedRequest): string | undefined {
    const attempt = attempts.get(keyOf(name, request.id));
    if (attempt !== undefined && attempt.meaning !== request.meaning) throw new RequestIdReusedError(request.id);
    return attempt?.text;
  }

  return {
    kind: LockAuthority.UNSPECIFIED,
    async take(order) {
      const { name, request } = order;
      const before = records.get(name);
      const wasGranted = request !== undefined && known(name, request) !== undefined;
      const decision = decideTake(before, order, wasGranted, nowMs(), tokens + 1);
      if (decision.kind === "yield") return decision;
      if (decision.kind === "attempt_over") throw new LockAttemptOverError(name, request?.id ?? "");
      if (decision.kind === "request_reused") throw new RequestIdReusedError(request?.id ?? "");
      records.set(name, decision.record);
      if (decision.kind === "held") return { kind: "held", holder: leaseOf(decision.record) };
      tokens = Math.max(tokens, decision.record.grant.token);
      if (request) attempts.set(keyOf(name, request.id), { meaning: request.meaning, text: "" });
      return { kind: "granted", lease: leaseOf(decision.record) };
    },
    async renew(order) {
      const before = records.get(order.name);
      const decision = decideRenew(before, order, nowMs());
      if (decision.kind === "over") return { ...decision, holder: live(before) };
      records.set(order.name, decision.record);
      return { kind: "renewed", lease: leaseOf(decision.record) };
    },
    async release(order) {
      const before = records.get(order.name);
      const after = decideRelease(before, order, nowMs());
      if (before === undefined || after === undefined) return { released: false, lease: live(before) };
      records.set(order.name, after);
      if (order.undo) attempts.delete(keyOf(order.name, before.grant.requestId));
      return { released: true, lease: leaseOf(before) };
    },
    async look(name) {
      const record = records.get(name);
      return { lease: live(record), lastToken: record?.grant.token ?? 0 };
    },
    async list({ prefix }) {
      const leases = [...records.values()].flatMap((record) => live(record) ?? []);
      return { leases: leases.filter(({ grant }) => grant.name.startsWith(prefix)), after: undefined };
    },
    async remember(name, request, text) {
      const kept = known(name, request);
      if (kept !== undefined) return kept;
      attempts.set(keyOf(name, request.id), { meaning: request.meaning, text });
      return text;
    },
    async close() {},
  };
}
