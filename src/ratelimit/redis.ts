import { RequestIdReusedError } from "../infra/named-request.ts";
import type { Redis } from "../infra/redis.ts";
import { type Ask, type Charge, type Counters, counterName, REMEMBERED_MS } from "./counters.ts";
import { createChecks } from "./redis-checks.ts";
import {
  acquireScript,
  holdersScript,
  leaseScript,
  renewScript,
  resetScript,
  returnScript,
} from "./redis-lease-scripts.ts";
import { refundScript } from "./redis-scripts.ts";
import { addLimits, readNumbers, readStandings } from "./redis-wire.ts";

export interface RedisCountersOptions {
  readonly redis: Pick<Redis, "run" | "mode">;
  /** Microseconds since 1970, for tests. Default: the clock of Redis. */
  readonly nowUs?: () => number;
}

/** Counters that all instances of one Redis share. */
export function createRedisCounters({ redis, nowUs }: RedisCountersOptions): Counters {
  const prefixOf = redis.mode === "cluster" ? clusterPrefix : prefix;
  const time = () => (nowUs === undefined ? "" : String(nowUs()));
  const checks = createChecks(redis, time);
  const leaseKey = (namespace: string, id: string) => `${prefixOf(namespace)}!lease:${id}`;
  const requestKey = (namespace: string, kind: string, id: string) => `${prefixOf(namespace)}!${kind}:${id}`;
  const counterKeys = (namespace: string, asks: readonly Ask[]) =>
    asks.map(({ rule, key }) => prefixOf(namespace) + counterName(rule, key));

  /**
   * What a script needs to be told of that ends or renews a lease. In a cluster that is all that it touches: while a slot moves to
   * another node, some keys are here and some there, and only a script that names all of them is kept from doing half of its work.
   */
  async function keysOf(lease: string): Promise<string[]> {
    if (redis.mode !== "cluster") return [lease];
    return [lease, ...textsOf(await redis.run(leaseScript, [lease], [time()]))];
  }

  async function giveBack(namespace: string, leaseId: string): Promise<boolean> {
    const keys = await keysOf(leaseKey(namespace, leaseId));
    return (await redis.run(returnScript, keys, [time(), leaseId])) === 1;
  }

  return {
    check(namespace, asks, charge, request) {
      const group = redis.mode === "cluster" ? namespace : "";
      return checks.add(group, {
        asks,
        keys: counterKeys(namespace, asks),
        mode: MODES[charge],
        memory: request && {
          ...request,
          key: requestKey(namespace, "check", request.id),
          ms: REMEMBERED_MS.check,
        },
      });
    },

    async refund(namespace, asks, chargedAt, request) {
      const counters = counterKeys(namespace, asks);
      // Without a name nothing is remembered: no key is named that is not needed.
      const remembered = request === undefined ? counters[0] : requestKey(namespace, "refund", request.id);
      const keys = remembered === undefined ? counters : [remembered, ...counters];
      const args: RedisArguments = [time(), chargedAt ?? "", request?.meaning ?? "", REMEMBERED_MS.refund];
      addLimits(args, asks);
      const reply = await redis.run(refundScript, keys, args);
      const [at = 0, ...numbers] = readNumbers(own(String(reply), request?.id ?? ""));
      return {
        at,
        refunded: numbers.slice(0, asks.length),
        standings: readStandings(numbers, asks.length),
      };
    },

    async reset(namespace, asks) {
      const slots = asks.filter(({ rule }) => rule.algorithm === "concurrency");
      if (slots.length > 0) {
        const holders = textsOf(await redis.run(holdersScript, counterKeys(namespace, slots), []));
        // Each by itself, since it may hold slots of other limits as well, and only it knows of which.
        for (const some of portionsOf(holders)) await Promise.all(some.map((id) => giveBack(namespace, id)));
      }
      const holdSlots = asks.map(({ rule }) => (rule.algorithm === "concurrency" ? "1" : "0"));
      await redis.run(resetScript, counterKeys(namespace, asks), [time(), ...holdSlots]);
    },

    async acquire(namespace, asks, order) {
      const { leaseId, ttlMs, request } = order;
      const keys = [requestKey(namespace, "acquire", request?.id ?? ""), leaseKey(namespace, leaseId)];
      const args: RedisArguments = [time(), leaseId, ttlMs, order.asks, request?.meaning ?? "", REMEMBERED_MS.acquire];
      addLimits(args, asks);
      const reply = await redis.run(acquireScript, [...keys, ...counterKeys(namespace, asks)], args);
      const [at = "", allowed, id = "", ends = "", ...rest] = own(String(reply), request?.id ?? "").split(" ");
      return {
        at: Number(at),
        allowed: allowed === "1",
        lease: allowed === "1" ? { id, expiresAt: Number(ends) } : undefined,
        standings: readStandings(rest.map(Number), 0),
      };
    },

    async renew(namespace, leaseId, ttlMs) {
      const keys = await keysOf(leaseKey(namespace, leaseId));
      const reply = await redis.run(renewScript, keys, [time(), leaseId, ttlMs]);
      if (!Array.isArray(reply)) return undefined;
      const [at = 0, expiresAt = 0, ...numbers] = readNumbers(String(reply[0]));
      const slots = [];
      for (let i = 0; i < numbers.length; i += 2) {
        slots.push({ used: numbers[i] ?? 0, firstEnd: numbers[i + 1] || undefined });
      }
      return { at, lease: { id: leaseId, expiresAt }, asks: String(reply[1]), slots };
    },

    giveBack,
  };
}

/** So many leases are ended at once. */
const MOST_AT_ONCE = 100;

function* portionsOf(ids: readonly string[]): Generator<readonly string[]> {
  for (let at = 0; at < ids.length; at += MOST_AT_ONCE) yield ids.slice(at, at + MOST_AT_ONCE);
}

function textsOf(reply: unknown): string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}

type RedisArguments = (string | number)[];

const MODES: Readonly<Record<Charge, string>> = { never: "p", if_allowed: "c", always: "a" };

/** As the platform before Holdfast had it: `ratelimit:client:42:...`. */
function prefix(namespace: string): string {
  return namespace === "default" ? "ratelimit:" : `holdfast:ratelimit:${namespace.replaceAll(":", "%3A")}:`;
}

/** All counters of a namespace in one slot, since any of them may be decided together. */
function clusterPrefix(namespace: string): string {
  return `ratelimit:{${namespace}}:`;
}

/** The reply, unless it tells that the name stands for another request. */
function own(reply: string, requestId: string): string {
  if (reply === "reused") throw new RequestIdReusedError(requestId);
  return reply;
}
