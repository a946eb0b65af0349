import type { DeliveryRef } from "../../src/audit/groups/deliveries.ts";
import type { Claimed } from "../../src/audit/groups/groups.ts";
import { claimOrder, type GroupInstance, type GroupInstances, member } from "./group-instances.ts";

/**
 * Consumers of several instances take from one group and ack, nack, leave and forget at random. What must hold, at any time:
 * - a record that is delivered is with nobody else: whoever had it settled it, gave it back, or let its deadline pass;
 * - a record whose ack took effect is never delivered again;
 * - in the end each record was acked with effect, once.
 * Returns what did not.
 */
export async function hammer(
  open: GroupInstances,
  instances: readonly GroupInstance[],
  options: { readonly group: string; readonly records: number; readonly consumers: number },
): Promise<readonly string[]> {
  const { group, records, consumers } = options;
  const problems: string[] = [];
  const holders = new Map<number, { readonly by: string; readonly deadlineMs: number }>();
  const done = new Set<number>();
  const giveUpAt = performance.now() + 60_000;

  function receive(by: string, { deliveries, deadlineMs }: Claimed): void {
    for (const { ref, attempt } of deliveries) {
      const { leafIndex } = ref;
      const held = holders.get(leafIndex);
      // Under its old name a consumer that comes back gets what it had.
      const isHeld = held !== undefined && held.by !== by && held.deadlineMs > open.clock.now();
      if (isHeld) problems.push(`leaf ${leafIndex} is with ${held.by} and was delivered to ${by}, attempt ${attempt}`);
      if (done.has(leafIndex)) problems.push(`leaf ${leafIndex} was acked and delivered to ${by} again`);
      holders.set(leafIndex, { by, deadlineMs });
    }
  }

  /** It may be delivered again from before the call returns. */
  function giveUp(by: string, refs: readonly DeliveryRef[]): void {
    for (const { leafIndex } of refs) if (holders.get(leafIndex)?.by === by) holders.delete(leafIndex);
  }

  async function consume(instance: GroupInstance, name: string): Promise<void> {
    const { groups } = instance;
    for (let stream = 1; done.size < records && problems.length === 0; stream++) {
      const me = member(group, name, `${name}-${stream}`);
      await groups.join({ ...me, start: "oldest", filter: undefined });
      const ended = () => Math.random() < 0.1 || done.size === records || problems.length > 0;
      let recoverAfter: number | undefined = 0;
      while (!ended()) {
        if (performance.now() > giveUpAt) throw new Error(`only ${done.size} of ${records} records were acked in time`);
        const room = { leaves: 1 + Math.floor(Math.random() * 20), bytes: 1 << 20 };
        const order = { room, maxDeliveries: 1_000_000, ackTimeoutMs: 5_000, recoverAfter };
        const claimed = await groups.claim(me, claimOrder(order));
        // The answer came so late that somebody else may have it by now.
        if (claimed.deadlineMs <= open.clock.now()) continue;
        receive(name, claimed);
        recoverAfter = undefined;
        const refs = claimed.deliveries.map(({ ref }) => ref);
        const half = Math.floor(refs.length / 2);
        open.clock.move(200);
        const dice = Math.random();
        if (dice < 0.6) await settle(instance, name, refs);
        else if (dice < 0.8) {
          giveUp(name, refs.slice(half));
          const delayMs = Math.floor(Math.random() * 500);
          await groups.nack(group, refs.slice(half), { delayMs, error: "no", dead: false });
          await settle(instance, name, refs.slice(0, half));
        }
        // Else they are forgotten until their deadline, or until this consumer comes back.
      }
      if (Math.random() < 0.5) continue;
      for (const [leafIndex, { by }] of holders) if (by === name) holders.delete(leafIndex);
      await groups.leave(me, undefined, undefined);
    }
  }

  async function settle({ groups }: GroupInstance, by: string, refs: readonly DeliveryRef[]): Promise<void> {
    if (refs.length === 0) return;
    for (const { leafIndex } of await groups.ack(group, refs)) {
      if (done.has(leafIndex)) problems.push(`leaf ${leafIndex} was acked twice`);
      done.add(leafIndex);
      if (holders.get(leafIndex)?.by !== by) problems.push(`leaf ${leafIndex} was acked by ${by}, who did not have it`);
      holders.delete(leafIndex);
    }
  }

  const outcomes = await Promise.allSettled(
    Array.from({ length: consumers }, (_, at) => {
      const instance = instances[at % instances.length];
      return instance === undefined ? Promise.resolve() : consume(instance, `c${at}`);
    }),
  );
  for (const outcome of outcomes) if (outcome.status === "rejected") problems.push(String(outcome.reason));
  return problems;
}
