import type { Clock } from "../infra/clock.ts";
import { type Fence, type Fences, FencingTokenStaleError } from "../infra/fencing.ts";
import { lifetime, type RequestedExpiry } from "./expiry.ts";
import type { L1 } from "./l1.ts";
import { guardOf } from "./lease.ts";
import type { Namespace } from "./namespace.ts";
import { portions } from "./portions.ts";
import type { Reads } from "./reads.ts";
import { type CacheValue, type Draft, tombstone } from "./record.ts";
import type { AskedFence, CacheStore, Guard, Write, WriteResult } from "./store.ts";
import { type Answered, createUpdates, type Decide, staleness, type Updates } from "./updates.ts";
import type { Versions } from "./version.ts";

export interface SetOrder {
  readonly key: string;
  readonly value: CacheValue;
  readonly expiry: RequestedExpiry;
  readonly tags: readonly string[];
  readonly ifAbsent: boolean;
  readonly leaseToken: string;
}

export type SetDecision =
  | { readonly outcome: "stored"; readonly version: number; readonly expiresAt: number | undefined }
  | { readonly outcome: "lease_lost" | "overtaken" | "exists" };

/** What a newer token of the lock was in the way of, while the others of the call were carried out. */
export interface Refused {
  readonly outcome: "refused";
  readonly error: FencingTokenStaleError;
}

export type SetAnswer = Answered & (SetDecision | Refused);
export type RemoveAnswer = Answered & ({ readonly outcome: "removed"; readonly existed: boolean } | Refused);

/** With a fence they reject with FencingTokenStaleError, before anything is read, where a newer token is known already. */
export interface Writes {
  /** One answer an order, in order; orders for one key are carried out in order. */
  set(namespace: Namespace, orders: readonly SetOrder[], fence?: Fence): Promise<SetAnswer[]>;
  remove(namespace: Namespace, keys: readonly string[], fence?: Fence): Promise<RemoveAnswer[]>;
  readonly update: Updates["update"];
  invalidate(namespace: Namespace, tags: readonly string[]): Promise<{ readonly degraded: boolean }>;
}

export interface WritesOptions {
  readonly l1: L1;
  readonly reads: Reads;
  readonly storeOf: (namespace: Namespace) => CacheStore;
  readonly versions: Versions;
  readonly fences: Fences;
  readonly clock: Clock;
  readonly random: () => number;
  /** A key has a new value or none: tell whoever waits or watches here. */
  readonly onChange: (namespace: Namespace, kind: "set" | "deleted", key: string, version: number) => void;
  readonly onInvalidate: (namespace: Namespace, tags: readonly string[], stamp: number) => void;
}

export function createWrites(options: WritesOptions): Writes {
  const { l1, reads, storeOf, versions, fences, clock, random, onChange, onInvalidate } = options;
  const updates = createUpdates({ reads, storeOf, versions, clock, ask, commit });

  /** Stores, and brings memory in line with what came of it. */
  async function commit(namespace: Namespace, writes: readonly Write[]): Promise<WriteResult[]> {
    const pendings = writes.map(({ key }) => l1.begin(namespace, key));
    try {
      const results = await storeOf(namespace).write(namespace.name, writes);
      results.forEach((result, i) => {
        const write = writes[i];
        const pending = pendings[i];
        if (write === undefined || pending === undefined) return;
        if (result.degraded) namespace.counters.fallbacks++;
        if (!result.stored) {
          if (result.why === "overtaken" && result.stamp !== undefined) versions.observe(result.stamp);
          return;
        }
        const { version, stamps } = result;
        versions.observe(version);
        l1.drop(namespace, write.key, version);
        reads.outdate(namespace, write.key);
        l1.put(namespace, write.key, { ...write.draft, version, stamps }, pending);
        if (write.draft.deleted) namespace.counters.deletes++;
        else namespace.counters.writes++;
        onChange(namespace, write.draft.deleted ? "deleted" : "set", write.key, version);
      });
      return results;
    } catch (error) {
      // Whether it was stored is not known, so the copy may be old.
      for (const { key, draft } of writes) l1.drop(namespace, key, draft.version);
      throw error;
    } finally {
      for (const [i, { key }] of writes.entries()) {
        const pending = pendings[i];
        if (pending !== undefined) l1.end(namespace, key, pending);
      }
    }
  }

  /** From here on SQL refuses what is older than this. Rejects where it knows something newer. */
  async function ask(fence: Fence): Promise<AskedFence> {
    const askedAt = versions.next();
    await fences.raise(fence);
    return { ...fence, askedAt };
  }

  function draftOf(namespace: Namespace, { value, expiry, tags }: SetOrder): Draft {
    const life = lifetime(expiry, namespace.policy, clock.now(), random);
    return { version: versions.next(), deleted: false, value, tags, ...life };
  }

  async function set(namespace: Namespace, orders: readonly SetOrder[], unasked?: Fence): Promise<SetAnswer[]> {
    const fence = unasked && (await ask(unasked));
    const [only] = orders;
    if (only !== undefined && orders.length === 1) return [await setOne(namespace, only, fence)];
    // Most orders are alone with their key and unconditional: those go in one batch. The others take their turns key by key.
    const byKey = Map.groupBy(orders.keys(), (at) => orders[at]?.key ?? "");
    const answers = new Map<SetOrder, SetAnswer>();
    const batch: SetOrder[] = [];
    const turns: SetOrder[][] = [];
    for (const positions of byKey.values()) {
      const group = positions.flatMap((at) => orders[at] ?? []);
      const [first] = group;
      if (first !== undefined && group.length === 1 && !first.ifAbsent) batch.push(first);
      else turns.push(group);
    }
    await Promise.all([setBatch(namespace, batch, fence, answers), takeTurns(namespace, turns, fence, answers)]);
    return orders.map((order) => {
      const answer = answers.get(order);
      if (answer === undefined) throw new Error("a set got no answer");
      return answer;
    });
  }

  /** A condition has the value that is there read, so only as many at once as may be. */
  async function takeTurns(
    namespace: Namespace,
    turns: readonly (readonly SetOrder[])[],
    fence: AskedFence | undefined,
    answers: Map<SetOrder, SetAnswer>,
  ): Promise<void> {
    for (const together of portions(turns, namespace.policy)) {
      await Promise.all(
        together.map(async (group) => {
          for (const order of group) answers.set(order, await setOne(namespace, order, fence));
        }),
      );
    }
  }

  async function setBatch(
    namespace: Namespace,
    batch: readonly SetOrder[],
    fence: AskedFence | undefined,
    answers: Map<SetOrder, SetAnswer>,
  ): Promise<void> {
    if (batch.length === 0) return;
    const writes = batch.map((order) => writeOf(namespace, order, fence));
    const results = await commit(namespace, writes);
    batch.forEach((order, i) => {
      const result = results[i];
      if (result !== undefined) answers.set(order, answerOf(result, writes[i]));
    });
  }

  async function setOne(namespace: Namespace, order: SetOrder, fence: AskedFence | undefined): Promise<SetAnswer> {
    if (!order.ifAbsent) {
      const write = writeOf(namespace, order, fence);
      const [result] = await commit(namespace, [write]);
      if (result === undefined) throw new Error("a write got no result");
      return answerOf(result, write);
    }
    const decide: Decide<SetDecision> = (current, version) => {
      if (current !== undefined) return { answer: { outcome: "exists" } };
      const { value, tags } = order;
      const life = lifetime(order.expiry, namespace.policy, clock.now(), random);
      const { expiresAt } = life;
      return { store: { value, tags, ...life }, answer: { outcome: "stored", version, expiresAt } };
    };
    try {
      return await updates.inTurn(namespace, order.key, decide, undefined, fence);
    } catch (error) {
      if (!(error instanceof FencingTokenStaleError)) throw error;
      return { outcome: "refused", error, layer: storeOf(namespace).layer, degraded: false };
    }
  }

  function writeOf(namespace: Namespace, order: SetOrder, fence: AskedFence | undefined): Write {
    const guard: Guard = order.leaseToken === "" ? { kind: "none" } : guardOf(order.leaseToken);
    return { key: order.key, draft: draftOf(namespace, order), guard, fence, announce: "set" };
  }

  function answerOf(result: WriteResult, write: Write | undefined): SetAnswer {
    const answered = { layer: result.layer, degraded: result.degraded ?? false };
    if (result.stored) {
      return { ...answered, outcome: "stored", version: result.version, expiresAt: write?.draft.expiresAt };
    }
    const error = staleness(result, write?.fence);
    if (error !== undefined) return { ...answered, outcome: "refused", error };
    return { ...answered, outcome: result.why === "overtaken" ? "overtaken" : "lease_lost" };
  }

  /** Which keys hold a value; the values themselves are let go of at once. */
  async function existing(namespace: Namespace, keys: readonly string[]) {
    const known: { existed: boolean; degraded: boolean }[] = [];
    for (const part of portions(keys, namespace.policy)) {
      for (const { outcome, degraded } of await reads.look(namespace, part)) {
        known.push({ existed: outcome === "hit", degraded });
      }
    }
    return known;
  }

  async function remove(namespace: Namespace, keys: readonly string[], unasked?: Fence): Promise<RemoveAnswer[]> {
    const fence = unasked && (await ask(unasked));
    const before = await existing(namespace, keys);
    const results = await commit(
      namespace,
      keys.map((key): Write => {
        const draft = tombstone(versions.next(), clock.now());
        return { key, draft, guard: { kind: "none" }, fence, announce: "deleted" };
      }),
    );
    return results.map((result, i): RemoveAnswer => {
      const { existed = false, degraded = false } = before[i] ?? {};
      const answered = { layer: result.layer, degraded: (result.degraded ?? false) || degraded };
      const error = staleness(result, fence);
      return error === undefined
        ? { ...answered, outcome: "removed", existed }
        : { ...answered, outcome: "refused", error };
    });
  }

  return {
    set,
    remove,
    update: updates.update,
    async invalidate(namespace, tags) {
      const stamp = versions.next();
      try {
        const { degraded = false } = await storeOf(namespace).invalidate(namespace.name, tags, stamp);
        if (degraded) namespace.counters.fallbacks++;
        namespace.counters.invalidations++;
        return { degraded };
      } finally {
        onInvalidate(namespace, tags, stamp);
      }
    },
  };
}
