import type { Clock } from "../infra/clock.ts";
import { type NamedRequest, RequestIdReusedError } from "../infra/named-request.ts";
import { waitForSlots } from "./algorithms/concurrency.ts";
import type { Counted } from "./algorithms/counted.ts";
import {
  type Ask,
  type Counters,
  counterName,
  type Lease,
  REMEMBERED_MS,
  type Refund,
  type SlotOrder,
  type Taken,
  type Verdict,
} from "./counters.ts";
import { decide, giveBackUnits, type Memory, standingFor } from "./decide.ts";
import { LeasedSlots } from "./leased-slots.ts";
import { MemoryTable } from "./memory-table.ts";

/** So many counters, leases and named requests are kept each; beyond, those set longest ago are forgotten. */
const MOST = { entries: 250_000, bytes: 64 * 1024 * 1024 };
/** What the slots that a lease holds of one limit take, about; and how one limit stands in an answer that is remembered. */
const HELD_BYTES = 200;
const STANDING_BYTES = 150;
const MICROS = 1_000;

interface HeldLease {
  readonly id: string;
  readonly namespace: string;
  readonly expiresAt: number;
  readonly asks: string;
  /** By the names of counters. */
  readonly held: readonly { readonly counter: string; readonly slots: number }[];
}

interface Remembered {
  readonly meaning: string;
  readonly answer: Verdict | Refund | Taken;
}

export interface MemoryCountersOptions {
  readonly clock: Pick<Clock, "now">;
  /** How long what is over is kept, should the clock be put back a little or the rule change. Default: 1 s. */
  readonly graceMs?: number;
  /** Of each kind. Default: 250,000 and 64 MiB. */
  readonly bounds?: { readonly entries: number; readonly bytes: number };
}

/** Counters of one instance. Each call is decided in one turn of the event loop. */
export function createMemoryCounters({ clock, graceMs = 1_000, bounds = MOST }: MemoryCountersOptions): Counters {
  const counters = new MemoryTable<Counted>(bounds);
  const slots = new MemoryTable<LeasedSlots>(bounds);
  // The slots of a lease that nobody can return any more are free.
  const leases = new MemoryTable<HeldLease>({ ...bounds, bytesOf: bytesOfLease, onDropped: (it) => free(it, nowUs()) });
  const requests = new MemoryTable<Remembered>({
    ...bounds,
    bytesOf: ({ answer }) => STANDING_BYTES * answer.standings.length,
  });
  const graceUs = graceMs * MICROS;
  const nowUs = () => Math.floor(clock.now() * MICROS);

  function memoryOf(namespace: string, now: number): Memory {
    return {
      counted: (counter) => counters.get(`${namespace} ${counter}`, now),
      keep: (counter, state, until) => counters.set(`${namespace} ${counter}`, state, until + graceUs, now),
      held: (counter) => heldOf(namespace, counter, now),
    };
  }

  function heldOf(namespace: string, counter: string, now: number): LeasedSlots {
    const held = slots.get(`${namespace} ${counter}`, now) ?? new LeasedSlots();
    held.expire(now);
    return held;
  }

  function keepHeld(namespace: string, counter: string, held: LeasedSlots, now: number): void {
    const name = `${namespace} ${counter}`;
    if (held.used === 0) slots.delete(name);
    else slots.set(name, held, held.lastEnd + graceUs, now);
  }

  function leaseOf(namespace: string, leaseId: string, now: number): HeldLease | undefined {
    const lease = leases.get(`${namespace} ${leaseId}`, now);
    return lease === undefined || lease.expiresAt <= now ? undefined : lease;
  }

  function keepLease(lease: HeldLease, now: number): void {
    leases.set(`${lease.namespace} ${lease.id}`, lease, lease.expiresAt + graceUs, now);
  }

  /** The first answer to a request that named itself, or the one that `answer` makes now. */
  function once<Answer extends Remembered["answer"]>(
    kind: keyof typeof REMEMBERED_MS,
    namespace: string,
    request: NamedRequest | undefined,
    now: number,
    answer: () => Answer,
    /** Whether it is told again as it was. */
    stands: (answer: Answer) => boolean = () => true,
  ): Answer {
    if (request === undefined) return answer();
    const name = `${kind} ${namespace} ${request.id}`;
    const known = requests.get(name, now);
    if (known !== undefined) {
      if (known.meaning !== request.meaning) throw new RequestIdReusedError(request.id);
      // Of this kind, as its name says.
      const first = known.answer as Answer;
      if (stands(first)) return first;
    }
    const made = answer();
    if (stands(made)) {
      requests.set(name, { meaning: request.meaning, answer: made }, now + REMEMBERED_MS[kind] * MICROS, now);
    }
    return made;
  }

  function take(namespace: string, asks: readonly Ask[], order: SlotOrder, now: number): Taken {
    const memory = memoryOf(namespace, now);
    const ahead = new Map<string, number>();
    const waits = asks.map(({ rule, key, cost }) => {
      const counter = counterName(rule, key);
      const units = (ahead.get(counter) ?? 0) + cost;
      const wait = waitForSlots(memory.held(counter), rule.limit, now, units);
      ahead.set(counter, units);
      return wait;
    });
    const allowed = asks.every(({ rule }, i) => rule.shadow || waits[i] === 0);
    let lease: Lease | undefined;
    if (allowed) {
      const expiresAt = now + order.ttlMs * MICROS;
      lease = { id: order.leaseId, expiresAt };
      const held = [...ahead].map(([counter, units]) => ({ counter, slots: units }));
      for (const one of held) {
        const taken = heldOf(namespace, one.counter, now);
        taken.put({ leaseId: lease.id, slots: one.slots, expiresAt });
        keepHeld(namespace, one.counter, taken, now);
      }
      keepLease({ id: lease.id, namespace, expiresAt, asks: order.asks, held }, now);
    }
    const standings = asks.map(({ rule, key }, i) => ({
      ...standingFor(memory, rule, key, now, 1),
      waitUs: waits[i] ?? 0,
    }));
    return { at: now, allowed, standings, lease };
  }

  function end(namespace: string, leaseId: string, now: number): boolean {
    const lease = leaseOf(namespace, leaseId, now);
    leases.delete(`${namespace} ${leaseId}`);
    if (lease === undefined) return false;
    free(lease, now);
    return true;
  }

  function free({ id, namespace, held }: HeldLease, now: number): void {
    for (const { counter } of held) {
      const others = heldOf(namespace, counter, now);
      others.delete(id);
      keepHeld(namespace, counter, others, now);
    }
  }

  return {
    async check(namespace, asks, charge, request) {
      const now = nowUs();
      return once("check", namespace, request, now, () => ({
        at: now,
        ...decide(memoryOf(namespace, now), asks, charge, now),
      }));
    },

    async refund(namespace, asks, chargedAt, request) {
      const now = nowUs();
      return once("refund", namespace, request, now, () => ({
        at: now,
        ...giveBackUnits(memoryOf(namespace, now), asks, chargedAt ?? now, now),
      }));
    },

    async reset(namespace, asks) {
      const now = nowUs();
      for (const { rule, key } of asks) {
        const name = `${namespace} ${counterName(rule, key)}`;
        if (rule.algorithm !== "concurrency") {
          counters.delete(name);
          continue;
        }
        // Also those that have ended, lest the clock be put back.
        for (const lease of slots.get(name, now)?.leaseIds ?? []) end(namespace, lease, now);
        slots.delete(name);
      }
    },

    async acquire(namespace, asks, order) {
      const now = nowUs();
      return once(
        ...(["acquire", namespace, order.request, now] as const),
        () => take(namespace, asks, order, now),
        ({ lease }) => lease !== undefined && lease.expiresAt > now,
      );
    },

    async renew(namespace, leaseId, ttlMs) {
      const now = nowUs();
      const lease = leaseOf(namespace, leaseId, now);
      if (lease === undefined) return undefined;
      const expiresAt = Math.max(lease.expiresAt, now + ttlMs * MICROS);
      const found = lease.held.map(({ counter, slots: units }) => {
        const held = heldOf(namespace, counter, now);
        held.put({ leaseId, slots: units, expiresAt });
        keepHeld(namespace, counter, held, now);
        return { used: held.used, firstEnd: held.firstEnd };
      });
      keepLease({ ...lease, expiresAt }, now);
      return {
        lease: { id: leaseId, expiresAt },
        at: now,
        asks: lease.asks,
        slots: found,
      };
    },

    async giveBack(namespace, leaseId) {
      return end(namespace, leaseId, nowUs());
    },
  };
}

function bytesOfLease({ asks, held }: HeldLease): number {
  return 2 * asks.length + held.reduce((sum, { counter }) => sum + HELD_BYTES + 2 * counter.length, 0);
}
