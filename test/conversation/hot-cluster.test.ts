import { describe, expect, it } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import { dropScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { slotOf } from "../../src/infra/redis-slot.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";
import { believing, keyOf, openTruth, startHot } from "./hot-parts.ts";

describe("the keys of a conversation", () => {
  const ids = [
    "plain",
    "a:b",
    "{t}x",
    "x{t}",
    "x{t",
    "x{}y",
    "x}y",
    "}{",
    "a}b{t}",
    "{{t}}",
    "ünï{cödé}",
    ":holdfast:a",
  ];

  it("lie in one slot wherever the document's name leaves a way to it", () => {
    for (const id of ids) {
      const { copy, document, together } = copyKeys({ collection: "conversation", id });
      expect(document).toBe(`conversation:${id}`);
      expect(slotOf(copy) === slotOf(document), id).toBe(together);
    }
    expect(ids.filter((id) => !copyKeys({ collection: "c", id }).together)).toEqual(["x{}y", "x}y", "}{"]);
  });

  it("are those of no other conversation", () => {
    const more = ids.flatMap((id) => [id, `${id}:holdfast`, `:holdfast:${id}`, `{${id}}:holdfast`]);
    const all = ["c", "holdfast", "conversation"].flatMap((collection) =>
      [...new Set(more)].map((id) => copyKeys({ collection, id })),
    );
    const names = all.flatMap(({ copy, document }) => [copy, document]);
    expect(new Set(names).size).toBe(names.length);
  });
});

/** The real Redis; tells how many copies are being dropped. */
function dropping(redis: Redis, tell: (change: 1 | -1) => void): Redis {
  return Object.create(redis, {
    run: {
      value: async (...[script, keys, args]: Parameters<Redis["run"]>) => {
        if (script !== dropScript) return redis.run(script, keys, args);
        tell(1);
        return redis.run(script, keys, args).finally(() => tell(-1));
      },
    },
  });
}

it("copies and documents lie where they belong in a cluster, whatever the ids, and are healed many at a time", async () => {
  await using cluster = await startRedisCluster();
  let [dropped, mostDropped] = [0, 0];
  const { database } = await openTruth();
  const url = cluster.urls.map((one) => one.replace("redis://", "")).join(",");
  const one = await startHot({
    database,
    redisUrl: `redis-cluster://${url}`,
    documents: true,
    commandTimeoutMs: 5_000,
    wrap: (redis) =>
      dropping(redis, (change) => {
        dropped += change;
        mostDropped = Math.max(mostDropped, dropped);
      }),
  });
  await believing(one);
  const ids = ["plain", "{t}x", "x{t", "x}y", "a}b{t}", ...Array.from({ length: 120 }, (_, at) => `c${at}`)];
  await Promise.all(ids.map((id, at) => one.save(id, at)));
  for (const [at, id] of ids.entries()) {
    await until(async () => (await one.copied(id)) === at, { what: `the copy of ${id}` });
  }
  const documents = ids.filter((id) => copyKeys(keyOf(id)).together);
  expect(documents.length).toBe(ids.length - 1);
  for (const id of documents) {
    const there = async () => (await one.redis.command("get", `conversation:${id}`)) !== null;
    await until(there, { what: `the document of ${id}` });
  }
  await Promise.all(ids.map((id, at) => one.save(id, at + 1)));
  const values = await Promise.all(ids.map(async (id) => (await one.value(id)).value));
  expect(values).toEqual(ids.map((_, at) => at + 1));
  // Each goes by itself, as its slot wants it: many at a time, but not all at once.
  one.copies.doubt(ids.map(keyOf));
  await one.copies.heal();
  expect(mostDropped).toBe(100);
  for (const id of ids.slice(0, 10)) expect((await one.value(id)).value).toBe(ids.indexOf(id) + 1);
});
