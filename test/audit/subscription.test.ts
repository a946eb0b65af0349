import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { AuditStart, type AuditSubscribeOpenSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { openPostgres } from "../../src/infra/postgres.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { KINDS } from "./archives.ts";
import { TestConsumer } from "./group-consumer.ts";
import { claimOrder, type GroupInstance, type GroupInstances, member, openGroups } from "./group-instances.ts";

type Open = MessageInitShape<typeof AuditSubscribeOpenSchema>;

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

describe.each(KINDS)("a subscription over %s", (kind) => {
  let open: GroupInstances;
  let group = "";
  let number = 0;
  let base = 0;
  beforeAll(async () => {
    open = await openGroups(kind);
  });
  afterAll(() => open[Symbol.asyncDispose]());
  beforeEach(async () => {
    group = `g${++number}`;
    base = await open.first.archive.size();
  });

  async function subscribe(options: Open = {}, instance: GroupInstance = open.first): Promise<TestConsumer> {
    const consumer = new TestConsumer(instance, { group, ...options });
    onTestFinished(() => consumer.vanish());
    await until(() => consumer.opened.length > 0 || consumer.ended !== undefined, { what: "an open stream" });
    return consumer;
  }

  const own = (from: number, to: number) => range(base + from, base + to);
  const ids = (consumer: TestConsumer) => consumer.deliveries.map(({ deliveryId }) => deliveryId);
  const condition = () => open.first.groups.condition(group);

  it("delivers what is appended, and answers each message about it in order", async () => {
    const consumer = await subscribe({ consumer: "a" });
    expect(consumer.opened).toMatchObject([{ group, consumer: "a", created: true }]);
    await open.append(3);
    expect(await consumer.delivered(3)).toEqual(own(1, 3));
    expect(consumer.deliveries[0]).toMatchObject({
      attempt: 1,
      record: { id: `p/${base + 1}`, leafIndex: BigInt(base) },
    });
    const [one = "", two = "", three = ""] = ids(consumer);
    consumer.ack(one);
    consumer.send({ case: "nack", value: { deliveryIds: [two], delay: { seconds: 60n } } });
    consumer.send({ case: "extend", value: { deliveryIds: [three, two] } });
    consumer.ack(one, three, "no.such", "%");
    await until(() => consumer.settled.length === 4, { what: "four answers" });
    expect(consumer.settled).toMatchObject([
      { deliveryIds: [one], lateDeliveryIds: [] },
      { deliveryIds: [two], lateDeliveryIds: [] },
      { deliveryIds: [three], lateDeliveryIds: [two] },
      { deliveryIds: [three], lateDeliveryIds: [one, "no.such", "%"] },
    ]);
    expect(await condition()).toMatchObject({ pending: 1, delayed: 1 });
  });

  it("goes by the default group and a name of its own when given none", async () => {
    const consumer = await subscribe({ group: "" });
    expect(consumer.opened[0]?.group).toBe("audit_processors");
    expect(consumer.opened[0]?.consumer).not.toBe("");
    expect((await subscribe({ group: "" })).opened[0]?.consumer).not.toBe(consumer.opened[0]?.consumer);
  });

  it("does not deliver to a new group what was acknowledged before, even if it is archived later", async () => {
    let asked = 0;
    const slow = open.instance(open.first.database, true, async () => {
      asked++;
      await open.append(2);
    });
    const consumer = await subscribe({}, slow);
    await open.append(1);
    expect(await consumer.delivered(1)).toEqual(own(3, 3));
    await subscribe({}, slow);
    expect(asked).toBe(1);
  });

  it("starts with the oldest record when asked to", async () => {
    await open.append(2);
    const consumer = await subscribe({ start: AuditStart.OLDEST, maxInFlight: 10_000 });
    await consumer.delivered(base + 2);
    expect(consumer.batches.flat().slice(-2)).toEqual(own(1, 2));
  });

  it("holds as many as the consumer has room for, and goes on as it settles", async () => {
    const consumer = await subscribe({ maxInFlight: 4 });
    await open.append(10);
    await consumer.delivered(4);
    expect(await condition()).toMatchObject({ pending: 4, lag: 6 });
    consumer.ack(...ids(consumer).slice(0, 2));
    await consumer.delivered(6);
    expect(await condition()).toMatchObject({ pending: 4, lag: 4 });
    consumer.ack(...ids(consumer).slice(2));
    expect(await consumer.delivered(10)).toEqual(own(1, 10));
  });

  it("takes no more from the group than a consumer takes that does not read", async () => {
    await subscribe();
    const lazy = new TestConsumer(open.first, { group, maxInFlight: 10_000 }, false);
    onTestFinished(() => lazy.vanish());
    const busy = await subscribe({ maxInFlight: 10_000 });
    await open.append(3_000);
    const acked = new Set<string>();
    await until(
      () => {
        const fresh = ids(busy).filter((id) => !acked.has(id));
        for (const id of fresh) acked.add(id);
        for (let at = 0; at < fresh.length; at += 1_000) busy.ack(...fresh.slice(at, at + 1_000));
        // The first consumer took a hundred and never acks.
        return acked.size >= 2_900;
      },
      { what: "the rest to be delivered to the one that reads" },
    );
    expect(lazy.batches).toEqual([]);
  });

  it("is not slowed, and nothing grows, by a consumer that never acks", async () => {
    await subscribe({ consumer: "never", maxInFlight: 5 });
    const busy = await subscribe({ consumer: "busy", maxInFlight: 50 });
    await open.append(500);
    let acked = 0;
    const ackAll = () => {
      const fresh = ids(busy).slice(acked, acked + 1_000);
      acked += fresh.length;
      if (fresh.length > 0) busy.ack(...fresh);
    };
    await until(
      async () => {
        ackAll();
        const now = await condition();
        return now?.lag === 0 && now.pending === 5;
      },
      { what: "the rest to be settled" },
    );
    // Each deadline brings them to somebody: the one that acks gets rid of them, or they become dead letters.
    await until(
      async () => {
        open.clock.move(30_000);
        ackAll();
        return (await condition())?.pending === 0;
      },
      { what: "the overdue records to be settled by others, or given up" },
    );
  });

  it("delivers to another consumer at once what a consumer held that is gone", async () => {
    const gone = await subscribe({ consumer: "gone" });
    await open.append(2);
    await gone.delivered(2);
    const other = await subscribe({ consumer: "other" }, open.second);
    await gone.vanish();
    expect(await other.delivered(2)).toEqual(own(1, 2));
    expect(other.deliveries.map(({ attempt }) => attempt)).toEqual([2, 2]);
    other.ack(...ids(gone));
    other.ack(...ids(other));
    await until(() => other.settled.length === 2, { what: "the answers" });
    expect(other.settled).toMatchObject([{ deliveryIds: [] }, { lateDeliveryIds: [] }]);
  });

  it("settles what it was sent and gives back the rest when the server drains", async () => {
    const consumer = await subscribe();
    await open.append(3);
    await consumer.delivered(3);
    consumer.ack(...ids(consumer).slice(0, 1));
    await until(() => consumer.settled.length === 1, { what: "the answer" });
    consumer.drain();
    expect(await consumer.end()).toMatchObject({ kind: "unavailable", reason: "SERVER_DRAINING" });
    const other = await subscribe({}, open.second);
    expect(await other.delivered(2)).toEqual(own(2, 3));
  });

  it("settles what it was sent and ends when the consumer sends no more", async () => {
    const consumer = await subscribe();
    await open.append(2);
    await consumer.delivered(2);
    consumer.ack(...ids(consumer));
    consumer.done();
    expect(await consumer.end()).toBe("ok");
    expect(consumer.settled).toMatchObject([{ deliveryIds: ids(consumer) }]);
    expect(await condition()).toMatchObject({ pending: 0 });
  });

  it.each(["the same instance", "another instance"])(
    "ends when its name is taken on %s, and hands over",
    async (where) => {
      const consumer = await subscribe({ consumer: "a" });
      await open.append(2);
      await consumer.delivered(2);
      const again = await subscribe({ consumer: "a" }, where === "the same instance" ? open.first : open.second);
      expect(await again.delivered(2)).toEqual(own(1, 2));
      expect(await consumer.end()).toMatchObject({ kind: "conflict", reason: "CONSUMER_REPLACED" });
      again.ack(...ids(again));
      await until(() => again.settled.length === 1, { what: "the answer" });
      expect(again.settled).toMatchObject([{ deliveryIds: ids(again) }]);
      expect((await condition())?.consumers).toMatchObject([{ name: "a", connected: true }]);
    },
  );

  it("leaves what it held to the stream that took its name, even what that has no room for yet", async () => {
    const consumer = await subscribe({ consumer: "a" });
    await open.append(2);
    await consumer.delivered(2);
    const again = await subscribe({ consumer: "a", maxInFlight: 1 });
    await again.delivered(1);
    await consumer.end();
    const b = member(group, "b");
    await open.first.groups.join({ ...b, start: "new", filter: undefined });
    expect((await open.first.groups.claim(b, claimOrder())).deliveries).toEqual([]);
    again.ack(...ids(again));
    expect(await again.delivered(2)).toEqual(own(1, 2));
  });

  it("sends heartbeats while there is nothing else to send", async () => {
    const consumer = await subscribe({ heartbeatInterval: { seconds: 1n } });
    await until(() => consumer.heartbeats >= 2, { what: "two heartbeats" });
    expect(consumer.deliveries).toEqual([]);
  });

  it("refuses a first message that asks for what there is not, naming every mistake", async () => {
    const consumer = await subscribe({
      group: "a b",
      consumer: "x".repeat(129),
      maxInFlight: 10_001,
      maxDeliveries: 1_001,
      ackTimeout: { nanos: 1 },
      heartbeatInterval: { seconds: 301n },
      filter: { resourceId: "1" },
    });
    const fields = ["group", "consumer", "filter.resource_type", "max_in_flight", "max_deliveries", "ack_timeout"];
    expect(await consumer.end()).toMatchObject({
      violations: [...fields, "heartbeat_interval"].map((field) => ({ field: `open.${field}` })),
    });
  });

  it("ends at a message out of turn, once what came before it is settled", async () => {
    const consumer = await subscribe();
    await open.append(1);
    await consumer.delivered(1);
    consumer.ack(...ids(consumer));
    consumer.send({ case: "open", value: {} });
    expect(await consumer.end()).toMatchObject({ kind: "invalid", violations: [{ field: "message" }] });
    expect(consumer.settled).toMatchObject([{ deliveryIds: ids(consumer) }]);
    const empty = await subscribe();
    empty.send({ case: "ack", value: {} });
    expect(await empty.end()).toMatchObject({ violations: [{ field: "ack.delivery_ids" }] });
    const slow = await subscribe();
    slow.send({ case: "nack", value: { deliveryIds: ["x"], delay: { seconds: 43_201n } } });
    expect(await slow.end()).toMatchObject({ violations: [{ field: "nack.delay" }] });
  });

  it("cuts a long error where a character ends", async () => {
    const consumer = await subscribe({ maxDeliveries: 1 });
    await open.append(1);
    await consumer.delivered(1);
    consumer.send({ case: "nack", value: { deliveryIds: ids(consumer), error: `\0${"€".repeat(400)}` } });
    await until(() => consumer.settled.length === 1, { what: "the answer" });
    const page = await open.first.groups.deadLetters(group, undefined, { leaves: 1, bytes: 1 });
    expect(page.deadLetters[0]?.lastError).toBe(`\ufffd${"€".repeat(340)}`);
  });
});

describe("a subscription whose SQL goes away", () => {
  it("stays open, keeps acks until they are committed, and goes on", async () => {
    const open = await openGroups("postgres");
    onTestFinished(() => open[Symbol.asyncDispose]());
    const url = new URL(open.where);
    const proxy = await startTcpProxy(Number(url.port));
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    url.port = String(proxy.port);
    const database = openPostgres({ url: url.href, poolSize: 4, statementTimeoutMs: 2_000, connectTimeoutMs: 1_000 });
    onTestFinished(() => database.close());
    const consumer = new TestConsumer(open.instance(database), { group: "g", heartbeatInterval: { seconds: 1n } });
    onTestFinished(() => consumer.vanish());
    await until(() => consumer.opened.length === 1, { what: "an open stream" });
    await open.append(3);
    await consumer.delivered(3);
    const [one = "", two = "", three = ""] = consumer.deliveries.map(({ deliveryId }) => deliveryId);

    proxy.cut();
    consumer.ack(one);
    consumer.send({ case: "nack", value: { deliveryIds: [two], delay: { seconds: 60n } } });
    consumer.ack(two, three);
    const before = consumer.heartbeats;
    await until(() => consumer.heartbeats > before + 1, { what: "heartbeats without SQL" });
    expect(consumer.settled).toEqual([]);
    await open.append(2);
    proxy.restore();

    await until(() => consumer.settled.length === 3, { what: "the answers" });
    expect(consumer.settled).toMatchObject([{ deliveryIds: [one] }, { deliveryIds: [two] }, { deliveryIds: [three] }]);
    expect(consumer.settled[2]?.lateDeliveryIds).toEqual([two]);
    expect(await consumer.delivered(5)).toEqual([1, 2, 3, 4, 5]);
  });
});
