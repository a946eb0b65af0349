import { describe, expect, it } from "vitest";
import { type AuditDelivery, AuditService, AuditStart } from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AuditClient, createAuditClient, type Subscribed, unnamed } from "../support/audit-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

const GROUP = "mailers";
const RECORDS = 400;

/**
 * What consumers are told, kept to be checked:
 * - while a consumer has a delivery and its deadline has not passed, nobody else is given the record;
 * - no two deliveries of a record are the same attempt;
 * - an ack of a record takes effect at most once.
 */
class Ledger {
  readonly problems: string[] = [];
  readonly delivered = new Set<string>();
  readonly #holders = new Map<string, { readonly by: string; readonly deadlineMs: number }>();
  readonly #attempts = new Set<string>();
  readonly #acked = new Set<string>();
  readonly #records = new Map<string, string>();

  /** False when it came too late to be dealt with. */
  receive(by: string, { deliveryId, record, attempt, ackDeadline }: AuditDelivery): boolean {
    const id = record?.id ?? "";
    const deadlineMs = Number(ackDeadline?.seconds) * 1000 + (ackDeadline?.nanos ?? 0) / 1e6;
    if (this.#attempts.has(`${id} ${attempt}`)) this.problems.push(`${id} came twice as attempt ${attempt}`);
    this.#attempts.add(`${id} ${attempt}`);
    this.#records.set(deliveryId, id);
    this.delivered.add(id);
    if (deadlineMs <= Date.now()) return false;
    const held = this.#holders.get(id);
    if (held !== undefined && held.by !== by && held.deadlineMs > Date.now()) {
      this.problems.push(`${id} is with ${held.by} and came to ${by}`);
    }
    if (this.#acked.has(id)) this.problems.push(`${id} was acked and came again, to ${by}`);
    this.#holders.set(id, { by, deadlineMs });
    return true;
  }

  giveUp(by: string, deliveryId: string): void {
    const id = this.#records.get(deliveryId) ?? "";
    if (this.#holders.get(id)?.by === by) this.#holders.delete(id);
  }

  giveUpAll(by: string): void {
    for (const [id, held] of this.#holders) if (held.by === by) this.#holders.delete(id);
  }

  acked(deliveryId: string): void {
    const id = this.#records.get(deliveryId) ?? "";
    if (this.#acked.has(id)) this.problems.push(`${id} was acked twice`);
    this.#acked.add(id);
    this.#holders.delete(id);
  }
}

/** Takes, acks, gives back, forgets and vanishes at random until it is told to stop. */
async function consume(
  name: string,
  servers: readonly HoldfastProcess[],
  ledger: Ledger,
  isOver: () => boolean,
): Promise<void> {
  while (!isOver()) {
    const server = servers[Math.floor(Math.random() * servers.length)];
    if (server === undefined) throw new Error("there is a server");
    using audit = createAuditClient(server.grpcAddress);
    let stream: Subscribed;
    try {
      const open = { group: GROUP, consumer: name, start: AuditStart.OLDEST, maxInFlight: 20, maxDeliveries: 1_000 };
      stream = await audit.subscribe({ ...open, ackTimeout: { seconds: 1n } });
    } catch {
      // This one was killed; the next try may go to the other.
      continue;
    }
    await work(name, stream, ledger, isOver);
    ledger.giveUpAll(name);
    stream.cancel();
  }
}

async function work(name: string, stream: Subscribed, ledger: Ledger, isOver: () => boolean): Promise<void> {
  const nacked = new Set<string>();
  let ended = false;
  void stream.ended.then(() => {
    ended = true;
  });
  let seen = 0;
  let answered = 0;
  const stopAt = performance.now() + 300 + Math.random() * 1_500;
  const isDone = () => ended || isOver() || performance.now() >= stopAt;
  while (!isDone()) {
    for (const delivery of stream.deliveries.slice(seen)) {
      seen++;
      if (!ledger.receive(name, delivery)) continue;
      const dice = Math.random();
      if (dice < 0.6) stream.ack(delivery.deliveryId);
      else if (dice < 0.8) {
        nacked.add(delivery.deliveryId);
        ledger.giveUp(name, delivery.deliveryId);
        stream.send({ case: "nack", value: { deliveryIds: [delivery.deliveryId], delay: { nanos: 5e7 } } });
      }
    }
    for (const { message } of stream.messages.slice(answered)) {
      answered++;
      if (message.case !== "settled") continue;
      for (const id of message.value.deliveryIds) if (!nacked.has(id)) ledger.acked(id);
    }
    const hasNews = () => stream.deliveries.length > seen || stream.messages.length > answered;
    await until(() => hasNews() || isDone(), { what: "something to do, or the end" });
  }
}

async function conditionOf(audit: AuditClient) {
  const { reply } = await audit.call(AuditService.method.getGroup, { group: GROUP });
  if (reply.group === undefined) throw new Error("a reply without a group");
  return reply.group;
}

describe("consumers of two instances over one Postgres, one of which is killed on the way", () => {
  it("have each record by themselves, and miss none", async () => {
    const env = { DATABASE_URL: await freshDatabase() };
    await using one = await startHoldfast(env);
    await using other = await startHoldfast(env);
    using audit = createAuditClient(other.grpcAddress);
    const ledger = new Ledger();
    let isOver = false;
    const consumers = ["a", "b", "c", "d"].map((name) => consume(name, [one, other], ledger, () => isOver));
    try {
      const ids: string[] = [];
      for (let batch = 0; batch < 8; batch++) {
        const entries = Array.from({ length: RECORDS / 8 }, () => ({ actor: "ada", action: "mail.send" }));
        ids.push(...(await audit.append(unnamed(...entries))).map(({ id }) => id));
        const half = ids.length / 2;
        await until(() => ledger.delivered.size >= half, { what: "half of the records to be delivered" });
        if (batch === 3) await one.kill();
        if (batch === 5) await one.restart();
      }
      await until(
        async () => {
          const { lag, pending } = await conditionOf(audit);
          return ledger.problems.length > 0 || (lag === 0n && pending === 0n);
        },
        { what: "all records to be settled", timeoutMs: 60_000 },
      );
      expect(ledger.problems).toEqual([]);
      expect((await conditionOf(audit)).deadLetters).toBe(0n);
      expect(ids.filter((id) => !ledger.delivered.has(id))).toEqual([]);
    } finally {
      isOver = true;
      await Promise.all(consumers);
    }
  });

  it("are delivered to by the other one when one shuts down, which tells them so", async () => {
    const env = { DATABASE_URL: await freshDatabase() };
    await using one = await startHoldfast(env);
    await using other = await startHoldfast(env);
    using here = createAuditClient(one.grpcAddress);
    using there = createAuditClient(other.grpcAddress);
    using first = await here.subscribe({ group: GROUP, consumer: "first", ackTimeout: { seconds: 3_600n } });
    using second = await there.subscribe({ group: GROUP, consumer: "second" });
    using tail = await here.tail();
    const busy = await there.append(unnamed(...Array.from({ length: 300 }, () => ({ actor: "ada", action: "x" }))));
    await until(() => first.deliveries.length > 0, { what: "deliveries" });
    await until(() => tail.records.length === busy.length, { what: "the tail" });
    await one.stop();
    expect(await first.ended).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING", hasRetryInfo: true });
    expect(await tail.ended).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING" });
    let acked = 0;
    await until(
      async () => {
        const fresh = second.deliveries.slice(acked);
        acked += fresh.length;
        if (fresh.length > 0) second.ack(...fresh.map(({ deliveryId }) => deliveryId));
        const { lag, pending, deadLetters } = await conditionOf(there);
        return lag === 0n && pending === 0n && deadLetters === 0n;
      },
      { what: "everything to be delivered by the other instance, long before the deadline" },
    );
  });
});
