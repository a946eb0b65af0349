import { create } from "@bufbuild/protobuf";
import {
  RateLimitCharge,
  type RateLimitDescriptor,
  RateLimitLeaseSchema,
  RateLimitService,
  type RateLimitServiceAcquireConcurrencyRequest,
  RateLimitServiceAcquireConcurrencyResponseSchema,
  RateLimitServiceListRulesResponseSchema,
  RateLimitServicePeekResponseSchema,
  RateLimitServiceRefundResponseSchema,
  RateLimitServiceResetResponseSchema,
  RateLimitServiceReturnConcurrencyResponseSchema,
} from "../gen/holdfast/v1/rate_limit_pb.js";
import { type CallContext, EncodedReply, type Mounted, mount, type ServedBy } from "../infra/call.ts";
import { namedRequest } from "../infra/named-request.ts";
import { readNamedToken, writeNamedToken } from "../infra/token.ts";
import type { Ask, Lease, Standing, Verdict } from "./counters.ts";
import type { Limiter } from "./limiter.ts";
import type { LimitMetrics } from "./metrics.ts";
import { denialFields, denialOf, isDegraded, ruleMessage, statusesOf, timestampOf } from "./replies.ts";
import { asksOf, LEASE_MS, LIMITS, LimitFields, meaningOf, type Wanted } from "./requests.ts";
import type { RuleBook } from "./rule-book.ts";
import { decodeCheck, encodeCheck } from "./wire.ts";

export interface RateLimitServiceOptions {
  readonly limiter: Limiter;
  readonly rules: RuleBook;
  readonly metrics: LimitMetrics;
  /** Where shared counters are, for the reply's metadata. Undefined: in this process. */
  readonly layer: ServedBy | undefined;
}

const COUNTING: Wanted = { kind: "counting", zero: true };
const REFUND: Wanted = { kind: "counting", zero: false };
const SLOTS: Wanted = { kind: "concurrency", zero: false };
const ANY: Wanted = { kind: "any", zero: true };
const SERVED_BY_MEMORY: ServedBy = "l1";

/** RateLimitService: decode, ask the limiter, encode. */
export function createRateLimitService({ limiter, rules, metrics, layer }: RateLimitServiceOptions): Mounted {
  function asked(fields: LimitFields, descriptors: readonly RateLimitDescriptor[], wanted: Wanted, call: CallContext) {
    return asksOf(fields, descriptors, wanted, rules, call.caller);
  }

  /** Says on the reply who answered, and whether in place of another. */
  function say(call: CallContext, standings: readonly Standing[]): boolean {
    const degraded = isDegraded(standings);
    call.servedBy(degraded || layer === undefined ? SERVED_BY_MEMORY : layer);
    if (degraded) call.degraded();
    return degraded;
  }

  /** A function of its own, so that what waits for the counters holds on to no more than the reply takes. */
  function checkReply(found: readonly Ask[], asks: readonly Ask[], call: CallContext) {
    return (verdict: Verdict): EncodedReply => {
      metrics.decided(found, verdict);
      const degraded = say(call, verdict.standings);
      return new EncodedReply(encodeCheck(asks, { verdict, ...denialOf(asks, verdict), degraded }));
    };
  }

  return mount(
    RateLimitService,
    {
      // Not an async function: it is asked before everything else that callers do.
      check(request, call) {
        const fields = new LimitFields();
        const namespace = fields.namespace(request.namespace);
        const requestId = fields.requestId(request.requestId);
        if (!(request.charge in RateLimitCharge)) fields.refuse("charge", "is not one that this server knows");
        const always = request.charge === RateLimitCharge.ALWAYS;
        const found = asked(fields, request.descriptors, COUNTING, call);
        const named = requestId === "" ? undefined : namedCheck(requestId, namespace, found, always, request.shadow);
        const asks = request.shadow ? found.map(inShadow) : found;
        return limiter
          .check(namespace, asks, always ? "always" : "if_allowed", named)
          .then(checkReply(found, asks, call));
      },

      async peek(request, call) {
        const fields = new LimitFields();
        const namespace = fields.namespace(request.namespace);
        const asks = asked(fields, request.descriptors, ANY, call);
        const verdict = await limiter.check(namespace, asks, "never", undefined);
        return create(RateLimitServicePeekResponseSchema, {
          allowed: verdict.allowed,
          statuses: statusesOf(asks, verdict.standings),
          ...denialFields(asks, verdict),
          degraded: say(call, verdict.standings),
        });
      },

      async refund(request, call) {
        const fields = new LimitFields();
        const namespace = fields.namespace(request.namespace);
        const requestId = fields.requestId(request.requestId);
        const chargedAt = fields.time("charge_time", request.chargeTime);
        const asks = asked(fields, request.descriptors, REFUND, call);
        const named = namedRequest(requestId, "Refund", () => meaningOf(namespace, asks, [String(chargedAt)]));
        const { refunded, standings } = await limiter.refund(namespace, asks, chargedAt, named);
        return create(RateLimitServiceRefundResponseSchema, {
          refunded: refunded.map(BigInt),
          statuses: statusesOf(asks, standings),
          degraded: say(call, standings),
        });
      },

      async reset(request, call) {
        const fields = new LimitFields();
        const namespace = fields.namespace(request.namespace);
        await limiter.reset(namespace, asked(fields, request.descriptors, ANY, call));
        call.servedBy(layer ?? SERVED_BY_MEMORY);
        return create(RateLimitServiceResetResponseSchema);
      },

      listRules(request) {
        const fields = new LimitFields();
        const { prefix, pageToken } = request;
        fields.text("prefix", prefix, 128, true);
        const pageSize = fields.pageSize(request.pageSize);
        const question = `ListRules ${prefix}`;
        const after = pageToken === "" ? "" : readNamedToken(question, pageToken, 0)?.name;
        if (after === undefined)
          fields.refuse("page_token", "is not a next_page_token of a listing of the same prefix");
        fields.done();
        const matching = rules.all.filter(({ name }) => name.startsWith(prefix) && name > (after ?? ""));
        const page = matching.slice(0, pageSize);
        const last = page.at(-1)?.name ?? "";
        return create(RateLimitServiceListRulesResponseSchema, {
          rules: page.map(ruleMessage),
          nextPageToken: page.length < matching.length ? writeNamedToken(question, { place: [], name: last }) : "",
          loadTime: timestampOf(rules.loadedAt * 1_000),
        });
      },

      acquireConcurrency(request, call) {
        return request.leaseId === "" ? acquire(request, call) : renew(request, call);
      },

      async returnConcurrency(request, call) {
        const fields = new LimitFields();
        const namespace = fields.namespace(request.namespace);
        fields.text("lease_id", request.leaseId, LIMITS.leaseBytes);
        fields.done();
        const returned = await limiter.giveBack(namespace, request.leaseId);
        call.servedBy(layer ?? SERVED_BY_MEMORY);
        return create(RateLimitServiceReturnConcurrencyResponseSchema, { returned });
      },
    },
    { check: decodeCheck },
  );

  async function acquire(request: RateLimitServiceAcquireConcurrencyRequest, call: CallContext) {
    const fields = new LimitFields();
    const namespace = fields.namespace(request.namespace);
    const requestId = fields.requestId(request.requestId);
    const ttlMs = ttlOf(fields, request);
    const asks = asked(fields, request.descriptors, SLOTS, call);
    const named = namedRequest(requestId, "AcquireConcurrency", () => meaningOf(namespace, asks, [String(ttlMs)]));
    const verdict = await limiter.acquire(namespace, asks, { ttlMs, request: named });
    metrics.decided(asks, verdict);
    const { retryAfter } = denialFields(asks, verdict);
    return create(RateLimitServiceAcquireConcurrencyResponseSchema, {
      allowed: verdict.allowed,
      ...leaseField(verdict.lease),
      statuses: statusesOf(asks, verdict.standings),
      deniedBy: verdict.allowed ? "" : firstDenying(asks, verdict.standings),
      ...(retryAfter !== undefined && { retryAfter }),
      degraded: say(call, verdict.standings),
    });
  }

  async function renew(request: RateLimitServiceAcquireConcurrencyRequest, call: CallContext) {
    const fields = new LimitFields();
    const namespace = fields.namespace(request.namespace);
    fields.requestId(request.requestId);
    fields.text("lease_id", request.leaseId, LIMITS.leaseBytes);
    if (request.descriptors.length > 0) fields.refuse("descriptors", "must be empty with lease_id");
    const ttlMs = ttlOf(fields, request);
    fields.done();
    const renewed = await limiter.renew(namespace, request.leaseId, ttlMs);
    if (renewed === undefined) {
      call.servedBy(layer ?? SERVED_BY_MEMORY);
      return create(RateLimitServiceAcquireConcurrencyResponseSchema);
    }
    return create(RateLimitServiceAcquireConcurrencyResponseSchema, {
      allowed: true,
      ...leaseField(renewed.lease),
      statuses: statusesOf(renewed.asks, renewed.standings),
      degraded: say(call, renewed.standings),
    });
  }
}

function namedCheck(id: string, namespace: string, asks: readonly Ask[], always: boolean, shadow: boolean) {
  return namedRequest(id, "Check", () => meaningOf(namespace, asks, [String(always), String(shadow)]));
}

function ttlOf(fields: LimitFields, { ttl }: RateLimitServiceAcquireConcurrencyRequest): number {
  const ms = fields.duration("ttl", ttl, LEASE_MS.most) ?? LEASE_MS.usual;
  if (ms < LEASE_MS.least) fields.refuse("ttl", "must be at least 1 second");
  return ms;
}

function leaseField(lease: Lease | undefined) {
  if (lease === undefined) return {};
  return { lease: create(RateLimitLeaseSchema, { id: lease.id, expireTime: timestampOf(lease.expiresAt) }) };
}

/** For slots it is the first, not the one that takes longest. */
function firstDenying(asks: readonly Ask[], standings: readonly Standing[]): string {
  const at = standings.findIndex(({ shadow, waitUs }) => !shadow && waitUs > 0);
  return asks[at]?.rule.name ?? "";
}

const shadows = new WeakMap<Ask["rule"], Ask["rule"]>();

function inShadow(ask: Ask): Ask {
  let rule = shadows.get(ask.rule);
  if (rule === undefined) {
    rule = { ...ask.rule, shadow: true };
    shadows.set(ask.rule, rule);
  }
  return { ...ask, rule };
}
