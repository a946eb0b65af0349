import { create } from "@bufbuild/protobuf";
import {
  CacheService,
  CacheServiceCompareAndSetResponseSchema,
  CacheServiceDeleteManyResponseSchema,
  CacheServiceDeleteResponseSchema,
  CacheServiceExistsResponseSchema,
  CacheServiceGetStatsResponseSchema,
  CacheServiceIncrementResponseSchema,
  CacheServiceInvalidateNamespaceResponseSchema,
  CacheServiceInvalidateTagsResponseSchema,
  CacheServiceListKeysResponseSchema,
  CacheServiceSetManyResponseSchema,
  CacheServiceTouchResponseSchema,
  CacheServiceWarmResponseSchema,
  type CacheServiceWatchResponse,
  DeleteResultSchema,
  KeyInfoSchema,
  SetResultSchema,
} from "../gen/holdfast/v1/cache_pb.js";
import { type CallContext, type EncodedReply, type Mounted, mount, type ServedBy } from "../infra/call.ts";
import { Failure } from "../infra/failure.ts";
import { fenceOf } from "../infra/fencing.ts";
import type { Cache } from "./cache.ts";
import { CacheFields, keyFault, LIMITS } from "./fields.ts";
import type { Held } from "./l1.ts";
import type { Namespace } from "./namespace.ts";
import type { Found } from "./reads.ts";
import {
  entryOf,
  expireTime,
  getManyReply,
  getReply,
  hitReply,
  hitsReply,
  itemError,
  replyRoom,
  setFields,
  setReply,
  staleError,
  statsOf,
  watchReply,
} from "./replies.ts";
import { cacheValueOf, expiryOf, orderOf, tagsOf, versionOf, wishOf } from "./requests.ts";
import { boundOf } from "./wire.ts";

export interface CacheServiceOptions {
  readonly cache: Cache;
  readonly instanceId: string;
}

/** The namespaces one GetStats answers for. */
const MOST_STATS = 1_000;
const HEARTBEAT_MS = 15_000;
/** Warmings that wait for their turn. Each holds its patterns in memory. */
const MOST_WARMINGS = 100;

class WarmingQueueFullError extends Failure {
  constructor() {
    super("too_large", "WARM_QUEUE_FULL", `${MOST_WARMINGS} warmings are waiting for their turn`, {
      retryAfterMs: 1_000,
    });
  }
}

/** CacheService: decode, call, encode. */
export function createCacheService({ cache, instanceId }: CacheServiceOptions): Mounted {
  const { reads } = cache;

  return mount(CacheService, {
    get(request, call) {
      const fields = new CacheFields();
      const name = fields.namespace(request.namespace);
      fields.key("key", request.key);
      const wish = wishOf(fields, request, call);
      fields.done();
      const namespace = cache.namespaces.get(name);
      const { key, bypassL1 } = request;
      if (wish !== undefined) return reads.getOrLease(namespace, key, bypassL1, wish).then(reply);
      const held = bypassL1 ? undefined : reads.fromMemory(namespace, key);
      if (held === undefined) return reads.get(namespace, key, bypassL1).then(reply);
      namespace.counters.l1Hits++;
      call.servedBy("l1");
      return hitReply(key, held);

      function reply(found: Found) {
        say(call, found);
        return getReply(key, found);
      }
    },

    getMany(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const { keys, bypassL1 } = request;
      fields.count("keys", keys.length, LIMITS.batch);
      fields.done();
      const held = bypassL1 ? undefined : hitsInMemory(namespace, keys);
      if (held === undefined) return getManyThroughLayers(namespace, keys, bypassL1, call);
      namespace.counters.l1Hits += keys.length;
      call.servedBy("l1");
      return hitsReply(keys, held);
    },

    async set(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const fence = fenceOf(fields, request.fencing);
      const order = orderOf(fields, request, request.leaseToken, namespace.policy);
      if (order.ifAbsent && order.leaseToken !== "") fields.refuse("if_absent", "cannot be combined with lease_token");
      fields.done();
      const [answer] = await cache.set(namespace, [order], fence);
      if (answer === undefined) throw new Error("a set got no answer");
      say(call, answer);
      if (answer.outcome === "refused") throw answer.error;
      return setReply(answer);
    },

    async setMany(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const fence = fenceOf(fields, request.fencing);
      fields.count("items", request.items.length, LIMITS.batch);
      fields.done();
      const items = request.items.map((item) => {
        const own = new CacheFields();
        const order = orderOf(own, item, "", namespace.policy);
        return { order, fault: own.violations[0] };
      });
      const good = items.filter((item) => item.fault === undefined);
      const answers = await cache.set(
        namespace,
        good.map((item) => item.order),
        fence,
      );
      sayAll(call, answers);
      const answered = new Map(good.map((item, i) => [item, answers[i]]));
      const results = items.map((item) => {
        const answer = answered.get(item);
        if (answer?.outcome === "refused") return create(SetResultSchema, { error: staleError(answer.error) });
        if (answer !== undefined) return create(SetResultSchema, setFields(answer));
        return create(SetResultSchema, item.fault === undefined ? {} : { error: itemError(item.fault) });
      });
      return create(CacheServiceSetManyResponseSchema, { results });
    },

    async delete(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const fence = fenceOf(fields, request.fencing);
      fields.key("key", request.key);
      fields.done();
      const [answer] = await cache.remove(namespace, [request.key], fence);
      if (answer === undefined) throw new Error("a delete got no answer");
      say(call, answer);
      if (answer.outcome === "refused") throw answer.error;
      return create(CacheServiceDeleteResponseSchema, { existed: answer.existed });
    },

    async deleteMany(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const fence = fenceOf(fields, request.fencing);
      fields.count("keys", request.keys.length, LIMITS.batch);
      fields.done();
      const faults = request.keys.map(keyFault);
      const good = [...new Set(request.keys.filter((_, i) => faults[i] === undefined))];
      const answers = good.length === 0 ? [] : await cache.remove(namespace, good, fence);
      sayAll(call, answers);
      const answered = new Map(good.map((key, i) => [key, answers[i]]));
      const results = request.keys.map((key, i) => {
        const fault = faults[i];
        if (fault !== undefined) {
          return create(DeleteResultSchema, { error: itemError({ field: "key", description: fault }) });
        }
        const answer = answered.get(key);
        if (answer?.outcome === "refused") return create(DeleteResultSchema, { error: staleError(answer.error) });
        return create(DeleteResultSchema, { existed: answer?.existed ?? false });
      });
      return create(CacheServiceDeleteManyResponseSchema, { results });
    },

    async exists(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.key("key", request.key);
      fields.done();
      const found = await reads.get(namespace, request.key, false);
      say(call, found);
      const { outcome, record } = found;
      if (outcome !== "hit" || record === undefined) return create(CacheServiceExistsResponseSchema, {});
      const version = BigInt(record.version);
      return create(CacheServiceExistsResponseSchema, { exists: true, version, ...expireTime(record.expiresAt) });
    },

    async touch(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.key("key", request.key);
      const expiry = expiryOf(fields, "expiry", request.expiry);
      fields.done();
      const answer = await cache.touch(namespace, request.key, expiry);
      say(call, answer);
      const { found, version, expiresAt } = answer;
      return create(CacheServiceTouchResponseSchema, { found, version: BigInt(version), ...expireTime(expiresAt) });
    },

    async increment(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.key("key", request.key);
      const expiry = expiryOf(fields, "expiry", request.expiry);
      const requestId = fields.requestId(request.requestId);
      fields.done();
      const { delta = 1n, initial } = request;
      const answer = await cache.increment(namespace, request.key, { delta, initial, expiry, requestId });
      say(call, answer);
      const { value, version, expiresAt } = answer;
      return create(CacheServiceIncrementResponseSchema, {
        value,
        version: BigInt(version),
        ...expireTime(expiresAt),
      });
    },

    async compareAndSet(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const fence = fenceOf(fields, request.fencing);
      fields.key("key", request.key);
      const order = {
        key: request.key,
        expected: versionOf(request.expectedVersion),
        value: cacheValueOf(fields, "value", request.value, namespace.policy),
        expiry: expiryOf(fields, "expiry", request.expiry),
        tags: tagsOf(fields, "tags", request.tags),
        requestId: fields.requestId(request.requestId),
      };
      fields.done();
      const answer = await cache.compareAndSet(namespace, order, fence);
      say(call, answer);
      const { swapped, version, expiresAt, current } = answer;
      return create(CacheServiceCompareAndSetResponseSchema, {
        swapped,
        version: BigInt(version),
        ...expireTime(expiresAt),
        ...(current === undefined ? {} : { current: entryOf(request.key, current) }),
      });
    },

    async invalidateTags(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.count("tags", request.tags.length, LIMITS.batch);
      request.tags.forEach((tag, i) => {
        fields.text(`tags[${i}]`, tag, LIMITS.tagBytes);
      });
      fields.done();
      const { degraded } = await cache.invalidate(namespace, [...new Set(request.tags)]);
      if (degraded) call.degraded();
      return create(CacheServiceInvalidateTagsResponseSchema);
    },

    async invalidateNamespace(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.done();
      const { degraded } = await cache.invalidate(namespace, []);
      if (degraded) call.degraded();
      return create(CacheServiceInvalidateNamespaceResponseSchema);
    },

    async listKeys(request, call) {
      const { fields, namespace } = begin(request.namespace);
      fields.text("prefix", request.prefix, LIMITS.keyBytes, true);
      const pageSize = fields.pageSize(request.pageSize);
      fields.done();
      const page = await cache.list(namespace, request.prefix, pageSize, request.pageToken);
      if (page.degraded) call.degraded();
      return create(CacheServiceListKeysResponseSchema, {
        keys: page.keys.map(({ key, version, expiresAt }) =>
          create(KeyInfoSchema, { key, version: BigInt(version), ...expireTime(expiresAt) }),
        ),
        nextPageToken: page.cursor ?? "",
      });
    },

    async warm(request, call) {
      const { fields, namespace } = begin(request.namespace);
      const patterns = request.patterns.length === 0 ? namespace.policy.warm : request.patterns;
      if (patterns.length === 0) fields.refuse("patterns", "is required: the namespace's policy has no warm patterns");
      if (patterns.length > LIMITS.patterns) fields.count("patterns", patterns.length, LIMITS.patterns);
      patterns.forEach((pattern, i) => {
        fields.text(`patterns[${i}]`, pattern, LIMITS.keyBytes);
      });
      fields.done();
      if (cache.warmer.waiting >= MOST_WARMINGS) throw new WarmingQueueFullError();
      if (!request.wait) {
        cache.warmer.warmInBackground(namespace, patterns);
        return create(CacheServiceWarmResponseSchema);
      }
      return create(CacheServiceWarmResponseSchema, await cache.warmer.warm(namespace, patterns, call.signal));
    },

    getStats(request, call) {
      const wanted = request.namespace;
      const namespaces =
        wanted === undefined
          ? cache.namespaces.all().filter(({ name }) => call.caller.mayUse(name))
          : [begin(wanted)].map(({ fields, namespace }) => {
              fields.done();
              return namespace;
            });
      const sorted = namespaces.sort((a, b) => (a.name < b.name ? -1 : 1)).slice(0, MOST_STATS);
      return create(CacheServiceGetStatsResponseSchema, { namespaces: sorted.map(statsOf), instanceId });
    },

    async *watch(request, call): AsyncGenerator<CacheServiceWatchResponse> {
      const { fields, namespace } = begin(request.namespace);
      fields.text("prefix", request.prefix, LIMITS.keyBytes, true);
      const beat = fields.duration("heartbeat_interval", request.heartbeatInterval, 300_000);
      if (beat !== undefined && beat < 1_000) fields.refuse("heartbeat_interval", "must be at least 1 second");
      fields.done();
      const events = cache.feed.watch(namespace.name, request.prefix, beat ?? HEARTBEAT_MS, call.signal);
      let sequence = 0n;
      for await (const event of events) yield watchReply(++sequence, event, instanceId);
    },
  });

  /** The copies if every key has one that may be served, and the reply has room for all; a bad key has none. */
  function hitsInMemory(namespace: Namespace, keys: readonly string[]): Held[] | undefined {
    const hits: Held[] = [];
    let bytes = 0;
    for (const key of keys) {
      const held = reads.fromMemory(namespace, key);
      if (held === undefined) return undefined;
      bytes += boundOf({ key, record: held.record });
      if (bytes > LIMITS.replyBytes) return undefined;
      hits.push(held);
    }
    return hits;
  }

  async function getManyThroughLayers(
    namespace: Namespace,
    keys: readonly string[],
    bypassL1: boolean,
    call: CallContext,
  ): Promise<EncodedReply> {
    const faults = keys.map(keyFault);
    const good = keys.filter((_, i) => faults[i] === undefined);
    const found = await reads.getMany(namespace, good, bypassL1, replyRoom(keys.length));
    sayAll(
      call,
      found.filter((one) => one !== undefined),
    );
    let next = 0;
    return getManyReply(
      keys.map((key, i) => {
        const fault = faults[i];
        if (fault !== undefined) return { field: "key", description: fault };
        const one = found[next++];
        return one === undefined ? "no room" : { key, found: one };
      }),
    );
  }

  /** The namespace of a request, once its name is known to be good: its policy is needed to check the rest. */
  function begin(name: string): { fields: CacheFields; namespace: Namespace } {
    const fields = new CacheFields();
    const checked = fields.namespace(name);
    fields.done();
    return { fields, namespace: cache.namespaces.get(checked) };
  }
}

interface Answer {
  readonly layer: ServedBy;
  readonly degraded: boolean;
}

function say(call: CallContext, { layer, degraded }: Answer): void {
  call.servedBy(layer);
  if (degraded) call.degraded();
}

/** A batch is said to be served by the deepest layer that any of it needed. */
function sayAll(call: CallContext, answers: readonly Answer[]): void {
  const deepest =
    answers.find(({ layer }) => layer !== "l1" && layer !== "redis") ?? answers.find(({ layer }) => layer !== "l1");
  const layer = (deepest ?? answers[0])?.layer;
  if (layer !== undefined) call.servedBy(layer);
  if (answers.some(({ degraded }) => degraded)) call.degraded();
}
