import { describe, expect, it } from "vitest";
import {
  append,
  done,
  expire,
  extend,
  KEY,
  KINDS,
  message,
  messagesOf,
  openLedgers,
  patch,
  remove,
  restore,
  save,
  state,
  stateOf,
} from "./ledgers.ts";

describe.each(KINDS)("the ledger in %s", (kind) => {
  it("carries every kind of order out", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    open.policies.set("conversation", { ttlMs: 1000, sliding: true, history: 5, tombstoneMs: 1000 });
    const first = await done(one, save("a", { messages: [message("m1"), message("m2")] }));
    expect(first.created).toBe(true);
    await done(one, append([message("m3")], { merge: (before) => state(`${Buffer.from(before)}!`) }));
    await done(one, patch("b"));
    expect(await stateOf(one)).toBe("a!b");
    expect(await messagesOf(one)).toEqual(["m1", "m2", "m3"]);
    const restored = await done(one, restore(first.held.version));
    expect(await stateOf(one)).toBe("a");
    expect(await messagesOf(one)).toEqual(["m1", "m2"]);
    expect(restored.held.messageCount).toBe(2);
    await done(one, extend({ expiry: { ttlMs: 500, sliding: false } }));
    open.clock.move(501);
    const expired = await done(one, expire());
    expect(expired.held.presence).toBe("expired");
    await done(one, save("c"));
    const deleted = await done(one, remove());
    expect(deleted.held.presence).toBe("deleted");
    open.clock.move(2000);
    const adopted = await done(one, {
      ...{ kind: "adopt", key: KEY, requestId: "r", generation: 7, state: state("d"), messageCount: 0 },
      origin: { collection: "conversation", id: "c0", version: 3 },
    });
    expect(adopted.held.generation).toBe(7);
    expect(await stateOf(one)).toBe("d");
  });
});
