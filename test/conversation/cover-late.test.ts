import { describe, expect, it } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import { coverScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { until } from "../support/until.ts";
import { copied } from "./cover-parts.ts";
import { believing, copiesOf, keyOf, startHot } from "./hot-parts.ts";

/** An instance with a copy, a reader that was slow, and one that has seen nothing yet and believes what Redis says. */
async function open() {
  const { database, redisUrl, one } = await copied();
  const [slow, other] = [await startHot({ database, redisUrl }), await startHot({ database, redisUrl })];
  await believing(slow, other);
  // Then it knows the clock of the server, and what it sends is done when what is sent after it is answered.
  await slow.save("anything", 0);
  await copiesOf([slow], "anything", 0);
  const before = (await one.get("c")).what;
  if (before?.state === undefined) throw new Error("it is not there");
  const { held, state } = before;
  const later = (by: number) => ({ ...held, stamp: held.stamp + by });
  const fillSlowly = async (by: number) => {
    slow.copies.fill([{ held: later(by), state }]);
    await slow.redis.ping();
  };
  return { database, redisUrl, one, other, later, fillSlowly };
}

/** The real Redis, to which every cover comes too late. */
function late(redis: Redis): Redis {
  return Object.create(redis, {
    run: {
      value: (...[script, keys, args]: Parameters<Redis["run"]>) =>
        redis.run(script, keys, script === coverScript ? args.with(1, 1) : args),
    },
  });
}

describe("a cover that comes late", () => {
  it("leaves a newer copy, so that no older one takes its place", async () => {
    const { one, other, later, fillSlowly } = await open();
    await one.save("c", 2);
    await copiesOf([one], "c", 2);
    await one.copies.cover([later(1)]);
    await fillSlowly(1);
    expect(await other.copied("c")).toBe(2);
  });

  it("keeps out no less than a newer one that lies there", async () => {
    const { one, other, later, fillSlowly } = await open();
    const newer = await one.copies.cover([later(2)]);
    await one.copies.cover([later(1)]);
    await fillSlowly(1);
    expect(await other.copied("c")).toBeUndefined();
    newer.lift([{ held: later(2), state: undefined }]);
    await copiesOf([other], "c", 1);
    expect((await other.copies.readHeld(keyOf("c")))?.stamp).toBe(later(2).stamp);
  });

  it("keeps out no less than a newer one that lies there without a copy", async () => {
    const { one, other, later, fillSlowly } = await open();
    await one.redis.command("flushdb");
    await one.copies.cover([later(2)]);
    await one.copies.cover([later(1)]);
    await fillSlowly(1);
    expect(await other.copied("c")).toBeUndefined();
  });

  it("is taken away by its own writer, and leaves what was there before", async () => {
    const { one, other, later } = await open();
    const newer = await one.copies.cover([later(2)]);
    const older = await one.copies.cover([later(1)]);
    older.withdraw();
    await one.redis.ping();
    expect(await other.copied("c")).toBeUndefined();
    newer.withdraw();
    await until(async () => (await other.copied("c")) === 1, { what: "the copy from before" });
  });

  it("does nothing when its time is over, and its change is marked", async () => {
    const { database, redisUrl, one, later } = await open();
    const cut = await startHot({ database, redisUrl, wrap: late });
    await believing(cut);
    const { complete } = await cut.copies.cover([later(1)]);
    expect(complete).toBe(false);
    expect(await one.copied("c")).toBe(1);
    await one.redis.command("del", copyKeys(keyOf("c")).copy);
    await cut.copies.cover([later(1)]);
    expect(await one.redis.command("exists", copyKeys(keyOf("c")).copy)).toBe(0);
    expect((await cut.save("c", 2)).degraded).toBe(true);
  });
});
