import { describe, expect, it } from "vitest";
import { decodePayload, encodePayload, topicChannel } from "../../src/infra/backplane-frame.ts";
import { createLocalBackplane, createLocalHub } from "../../src/infra/backplane-local.ts";
import { createSequences } from "../../src/infra/backplane-topics.ts";
import { createWireBackplane, type Transport, type TransportHandlers } from "../../src/infra/backplane-wire.ts";
import { describeBackplane } from "../conformance/backplane.ts";
import { until } from "../support/until.ts";

describeBackplane("the backplane inside one process", async () => {
  const hub = createLocalHub();
  return { join: () => createLocalBackplane({ hub }), faults: {}, close: async () => {} };
}, []);

describe("a frame", () => {
  it("may be appended to by who publishes it inside an atomic step", () => {
    const begun = encodePayload("me.x", undefined, "set ");
    expect(decodePayload(`${begun}17 ["ns","k"]`)).toEqual({
      sender: "me.x",
      sequence: undefined,
      message: 'set 17 ["ns","k"]',
    });
  });

  it.each(["", "x", "a b", "a b c", " 1 c", "a -1 c", "a 1e3 c"])(
    "is not what someone else published: %j",
    (payload) => {
      expect(decodePayload(payload)).toBeUndefined();
    },
  );

  it("needs a topic that fits a channel name everywhere", () => {
    expect(topicChannel("cache")).toBe("holdfast:backplane:cache");
    expect(() => topicChannel("Cache one")).toThrow("a topic is");
    expect(() => topicChannel("x".repeat(41))).toThrow("a topic is");
  });
});

describe("sequence numbers", () => {
  it("show a hole for each sender and channel by itself, and none after beginning anew", () => {
    const sequences = createSequences();
    expect(sequences.missed("c", "a", 5)).toBe(false);
    expect(sequences.missed("c", "a", 6)).toBe(false);
    expect(sequences.missed("d", "a", 9)).toBe(false);
    expect(sequences.missed("c", "b", 1)).toBe(false);
    expect(sequences.missed("c", "a", 8)).toBe(true);
    expect(sequences.missed("c", "a", 7)).toBe(false);
    expect(sequences.missed("c", "a", 9)).toBe(false);
    sequences.forget();
    expect(sequences.missed("c", "a", 20)).toBe(false);
  });
});

it("reports a gap when a message of another instance is missing though the connection never broke", async () => {
  // A wire that a test can take one message out of, which no real server does on request.
  const wire = new Set<TransportHandlers>();
  let swallow = false;
  const connect = (handlers: TransportHandlers): Transport => {
    wire.add(handlers);
    queueMicrotask(handlers.onUp);
    const publish: Transport["publish"] = async ({ channel, payload }) => {
      if (!swallow) for (const { onMessage } of wire) onMessage(channel, payload);
    };
    return { publish, beat: publish, listen: () => {}, unlisten: () => {}, renew: () => {}, close: async () => {} };
  };
  const join = (instanceId: string) => createWireBackplane({ kind: "test", instanceId, heartbeatMs: 10_000, connect });
  const sender = join("a");
  const receiver = join("b");
  const seen: (string | boolean)[] = [];
  receiver.subscribe("t", (message) => seen.push(message));
  await until(() => receiver.live, { what: "the backplane to be live" });
  receiver.onGap((live) => seen.push(live));
  await sender.publish("t", "1");
  swallow = true;
  await sender.publish("t", "2");
  swallow = false;
  await sender.publish("t", "3");
  await sender.publish("t", "4");
  expect(seen).toEqual(["1", false, true, "3", "4"]);
  await Promise.all([sender.close(), receiver.close()]);
});
