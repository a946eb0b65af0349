import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { createBudget } from "../../src/cli/import/budget.ts";
import { openConversationFile } from "../../src/cli/import/conversation-file.ts";
import { Unfit } from "../../src/cli/import/conversation-json.ts";
import { openConversationRedis } from "../../src/cli/import/conversation-redis.ts";
import {
  type ConversationSource,
  type Loaded,
  namedBy,
  type Place,
  prefixesOf,
} from "../../src/cli/import/conversation-source.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";

const scratch = scratchDirectory("import-conversations");
afterAll(() => scratch.remove());
let directory = "";
let number = 0;
beforeEach(() => {
  directory = join(scratch.path, String(++number));
  mkdirSync(directory);
});

type Outcome = Pick<Loaded, "collection" | "id" | "document" | "lifetime"> | string | undefined;

/** What each place of a source holds: a document, why it is none, or nothing any more. */
async function contents(source: ConversationSource): Promise<Map<string, Outcome>> {
  const found = new Map<string, Outcome>();
  for await (const place of source.places()) {
    expect(found.has(place.where)).toBe(false);
    found.set(place.where, await outcomeOf(place));
  }
  await source.close();
  return found;
}

async function outcomeOf(place: Place): Promise<Outcome> {
  try {
    expect(await place.bytes()).toBeGreaterThanOrEqual(0);
    return await place.load();
  } catch (error) {
    if (error instanceof Unfit) return `${error.reason}: ${error.message}`;
    throw error;
  }
}

describe("the keys of a Redis", () => {
  const clients: Redis[] = [];
  afterEach(() => {
    for (const client of clients.splice(0)) client.disconnect();
  });

  function clientOf(url: string): Redis {
    const client = new Redis(url);
    clients.push(client);
    return client;
  }

  const open = (redisUrl: string, ...collections: string[]) =>
    openConversationRedis({ redisUrl, environment: {}, prefixes: prefixesOf(collections) });

  it("are those of both collections, each once, with the time that is left", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:a:b", '{"status": "x"}', "EX", 1000);
    await redis.set("orchestration:o", '{"status": "y"}');
    await redis.set("conversation:", '{"status": "no id"}');
    await redis.set("conversations:x", '{"status": "another"}');
    await redis.set("{conversation:a:b}:holdfast", "hfc1");
    for (let n = 0; n < 1500; n++) await redis.set(`conversation:many-${n}`, "{}");
    const found = await contents(await open(url));
    expect(found.size).toBe(1502);
    expect(found.get("orchestration:o")).toEqual({
      ...{ collection: "orchestration", id: "o", document: { status: "y" }, lifetime: "never" },
    });
    const first = found.get("conversation:a:b");
    if (typeof first !== "object" || typeof first.lifetime !== "object") throw new Error("it has no lifetime");
    expect(first).toMatchObject({ collection: "conversation", id: "a:b", document: { status: "x" } });
    const leftMs = first.lifetime.endsAtMs - performance.now();
    expect(leftMs).toBeGreaterThan(900_000);
    expect(leftMs).toBeLessThanOrEqual(1_000_000);
  });

  it("may have any prefix, whatever it means in a pattern", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.mset(
      "app[1]*:x",
      '{"n": 1}',
      "app1:x",
      '{"n": 2}',
      "app[1]*:deep:y",
      '{"n": 3}',
      "conversation:z",
      "{}",
    );
    const found = await contents(await open(url, "chat=app[1]*:", "deep=app[1]*:deep:"));
    expect([...found.values()]).toHaveLength(2);
    expect(found.get("app[1]*:x")).toMatchObject({ collection: "chat", id: "x" });
    expect(found.get("app[1]*:deep:y")).toMatchObject({ collection: "deep", id: "y" });
  });

  it("that hold something else are refused by name, and the others go on", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:good", '{"status": "x"}');
    await redis.set("conversation:broken", '{"status": ');
    await redis.set("conversation:nan", '{"score": NaN}');
    await redis.rpush("conversation:list", "a");
    await redis.hset("conversation:hash", "a", "b");
    await redis.set("conversation:bytes", Buffer.from([0x80, 4, 0x95]));
    await redis.set(Buffer.from([...Buffer.from("conversation:"), 0xff]), "{}");
    const found = await contents(await open(url));
    expect(found.size).toBe(7);
    expect(found.get("conversation:good")).toMatchObject({ id: "good" });
    expect(found.get("conversation:broken")).toMatch(/^NOT_JSON: is not JSON, or is torn off/);
    expect(found.get("conversation:nan")).toMatch(/^NOT_A_NUMBER: holds NaN/);
    expect(found.get("conversation:list")).toMatch(/^NOT_A_STRING: holds a list/);
    expect(found.get("conversation:hash")).toMatch(/^NOT_A_STRING: holds a hash/);
    expect(found.get("conversation:bytes")).toMatch(/^NOT_JSON: .*not even UTF-8.*800495/);
    expect(found.get("conversation:\ufffd")).toMatch(/^KEY_NOT_TEXT/);
  });

  it("that are gone before they are read are nothing", async () => {
    const url = await freshRedis();
    const redis = clientOf(url);
    await redis.set("conversation:a", "{}");
    const source = await open(url);
    for await (const place of source.places()) {
      await redis.del("conversation:a");
      expect(await place.load()).toBeUndefined();
    }
    await source.close();
  });

  it("can be mended in the file of what was refused: it has the key, the value and the time that is left", async () => {
    const url = await freshRedis();
    await clientOf(url).set("conversation:a", '{"score": NaN}', "EX", 100);
    const source = await open(url);
    for await (const place of source.places()) {
      await outcomeOf(place);
      expect(place.raw()).toMatchObject({ key: "conversation:a", value: '{"score": NaN}', ttl: expect.any(Number) });
    }
    await source.close();
  });

  it("are missed where there are none, and what there is is shown", async () => {
    const url = await freshRedis();
    expect((await open(url)).remarks.join()).toMatch(/no key conversation:\* and orchestration:\*.*no keys at all/);
    await clientOf(url).set("chat:1", "{}");
    expect((await open(url)).remarks.join()).toMatch(/keys such as chat:1/);
    expect((await open(url, "chat")).remarks).toEqual([]);
  });

  it("are all read though Redis goes away in the middle", async () => {
    await using redis: RedisServer = await startRedis({ args: ["--appendonly", "yes"] });
    const client = clientOf(redis.url);
    const pipeline = client.pipeline();
    for (let n = 0; n < 3000; n++) pipeline.set(`conversation:${n}`, `{"n": ${n}}`);
    await pipeline.exec();
    const source = await open(redis.url);
    const ids = new Set<string>();
    let count = 0;
    for await (const place of source.places()) {
      if (count++ === 700) {
        await redis.kill();
        await redis.restart();
      }
      const loaded = await place.load();
      if (loaded !== undefined) ids.add(loaded.id);
    }
    await source.close();
    expect(ids.size).toBe(3000);
  });

  it("are read from all nodes of a Redis Cluster", async () => {
    await using cluster = await startRedisCluster();
    const nodes = cluster.nodes.map(({ port }) => `127.0.0.1:${port}`).join(",");
    const client = new Redis.Cluster(cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port })));
    for (let n = 0; n < 300; n++) await client.set(`conversation:${n}`, `{"n": ${n}}`, "EX", 500);
    client.disconnect();
    const found = await contents(await open(`redis-cluster://${nodes}`));
    expect(new Set([...found.values()].map((one) => typeof one === "object" && one.id)).size).toBe(300);
  });
});

describe("a file", () => {
  const path = (name = "c.json") => join(directory, name);
  const DOCUMENT = { status: "x", messages: [], _metadata: { case_id: "c-1" } };

  async function read(content: string | Buffer, collections: string[] = [], name?: string) {
    writeFileSync(path(name), content);
    const prefixes = prefixesOf(collections);
    const [first] = collections.length === 0 ? ["conversation"] : prefixes.map(({ collection }) => collection);
    const collection = collections.length > 1 ? undefined : first;
    return openConversationFile({ path: path(name), prefixes, collection, keysAreIds: collections.length === 1 });
  }

  const names = (found: Map<string, Outcome>) =>
    [...found.values()].map((one) => (typeof one === "object" ? `${one.collection}/${one.id}` : one));

  it("may be one object by key, its values documents or their JSON", async () => {
    const text = JSON.stringify({
      "conversation:a": DOCUMENT,
      "orchestration:b": JSON.stringify({ status: "y" }),
      "session:c": DOCUMENT,
    });
    const found = await contents(await read(text));
    expect(names(found)).toEqual([
      "conversation/a",
      "orchestration/b",
      'UNKNOWN_KEY: its key "session:c" begins neither with conversation: nor orchestration:; see --collection NAME=PREFIX',
    ]);
    expect(found.get("orchestration:b")).toMatchObject({ document: { status: "y" }, lifetime: undefined });
  });

  it("may be an object by id, if the collection is said", async () => {
    const text = JSON.stringify({ "id-1": { status: "x" }, "id-2": { status: "y" } });
    await expect(read(text)).rejects.toThrow(/is an object with id-1, id-2: none of these is a key conversation:/);
    expect(names(await contents(await read(text, ["support=s:"])))).toEqual(["support/id-1", "support/id-2"]);
  });

  it.each([
    ["a list", (values: unknown[]) => JSON.stringify(values, undefined, 1)],
    ["JSON lines", (values: unknown[]) => `${values.map((value) => JSON.stringify(value)).join("\n\n")}\n`],
  ])("may be %s of documents with their id inside, or of keys and values", async (_, write) => {
    const found = await contents(
      await read(
        write([
          DOCUMENT,
          { case_id: 17, status: "x" },
          { key: "orchestration:o", value: JSON.stringify({ status: "y" }), ttl: 60 },
          { key: "conversation:never", value: { status: "z" }, ttl: -1 },
          { key: "conversation:over", value: { status: "z" }, ttl: -2 },
          { status: "nobody" },
          "text",
        ]),
      ),
    );
    expect(names(found)).toEqual([
      "conversation/c-1",
      "conversation/17",
      "orchestration/o",
      "conversation/never",
      undefined,
      expect.stringMatching(/^NO_ID: .*it has status/),
      expect.stringMatching(/^NOT_JSON: .*begins with \\?"text/),
    ]);
    const [, , timed, never] = [...found.values()];
    expect(never).toMatchObject({ lifetime: "never" });
    if (typeof timed !== "object" || typeof timed.lifetime !== "object") throw new Error("it has no lifetime");
    expect(timed.lifetime.endsAtMs - performance.now()).toBeLessThanOrEqual(60_000);
  });

  it("may be one document, or one {key, value}", async () => {
    expect(names(await contents(await read(JSON.stringify(DOCUMENT, undefined, 2))))).toEqual(["conversation/c-1"]);
    const entry = JSON.stringify({ key: "orchestration:o", value: DOCUMENT });
    expect(names(await contents(await read(entry)))).toEqual(["orchestration/o"]);
  });

  it("of documents without keys belongs to the one collection that was named", async () => {
    const text = JSON.stringify([DOCUMENT]);
    expect(names(await contents(await read(text, ["chat"])))).toEqual(["chat/c-1"]);
    expect(names(await contents(await read(text, ["a", "b"])))).toEqual([expect.stringMatching(/^NO_COLLECTION/)]);
  });

  it("in lines is read on past one that is damaged, and may be packed", async () => {
    const lines = [`{"case_id": "1", "status": "x"}`, `{"case_id": "2", "status": NaN}`, `{"case_id": "3"`];
    const found = await contents(await read(gzipSync(lines.join("\n")), [], "c.jsonl.gz"));
    expect(names(found)).toEqual([
      "conversation/1",
      expect.stringMatching(/^NOT_A_NUMBER/),
      "NOT_JSON: is not JSON: the last line, torn off",
    ]);
    expect([...found.keys()].map((where) => where.split(":").at(-1))).toEqual(["1", "2", "3"]);
  });

  it("takes back what was refused, once it is mended", async () => {
    const source = await read('{"conversation:a": {"status": "x", "n": 12345678901234567890}}');
    const refused: string[] = [];
    for await (const place of source.places()) {
      refused.push(JSON.stringify({ where: place.where, reason: "NUMBER_TOO_LARGE", message: "", ...place.raw() }));
    }
    expect(refused[0]).toContain("12345678901234567890");
    const mended = refused.join("\n").replace("12345678901234567890", "5");
    const found = await contents(await read(mended));
    expect([...found.values()]).toMatchObject([{ collection: "conversation", id: "a", document: { n: 5 } }]);
    // A document that stood under no key has none there either.
    const keyless = JSON.stringify({ where: "c:1", reason: "R", message: "", value: JSON.stringify(DOCUMENT) });
    expect(names(await contents(await read(`${keyless}\n${keyless}\n`)))).toEqual([
      "conversation/c-1",
      "conversation/c-1",
    ]);
  });

  it.each([
    ["", /is empty/],
    ["nonsense", /is not JSON; it begins with "nonsense"/],
    ["[1, 2", /is not JSON, or is torn off/],
    ['{"a": NaN}', /holds NaN/],
    ["5", /holds a number/],
    ['"text"', /holds a text/],
  ])("that is nothing of the kind is told so: %j", async (content, why) => {
    await expect(read(content)).rejects.toThrow(why);
  });

  it("that is not there, or a directory, is told so", async () => {
    const options = { prefixes: prefixesOf([]), collection: undefined, keysAreIds: false };
    await expect(openConversationFile({ ...options, path: path("none") })).rejects.toThrow(/cannot be read.*ENOENT/);
    await expect(openConversationFile({ ...options, path: directory })).rejects.toThrow(/cannot be read.*EISDIR/);
  });
});

describe("a prefix", () => {
  it("names a collection, and the longest that fits decides", () => {
    const prefixes = prefixesOf(["a=x:", "b=x:y:"]);
    expect(namedBy("x:1", prefixes)).toEqual({ collection: "a", id: "1" });
    expect(namedBy("x:y:1", prefixes)).toEqual({ collection: "b", id: "1" });
    expect(namedBy("x:", prefixes)).toBeUndefined();
    expect(namedBy("z:1", prefixes)).toBeUndefined();
  });

  it.each(["", "a b", "a=", "=x:", "x".repeat(129)])("is refused when it is none: %j", (text) => {
    expect(() => prefixesOf([text])).toThrow(/--collection is/);
  });
});

describe("a budget", () => {
  it("lets in what fits, in the order it came, and what is larger than all of it alone", async () => {
    const budget = createBudget(10);
    const started: number[] = [];
    const releases: (() => void)[] = [];
    const order = [6, 4, 1, 50, 2];
    const all = order.map(async (bytes, at) => {
      const release = await budget.take(bytes);
      started.push(at);
      releases[at] = release;
    });
    const settle = () => new Promise((resolve) => setImmediate(resolve));
    await settle();
    expect(started).toEqual([0, 1]);
    releases[0]?.();
    await settle();
    expect(started).toEqual([0, 1, 2]);
    releases[1]?.();
    await settle();
    expect(started).toEqual([0, 1, 2]);
    releases[2]?.();
    await settle();
    expect(started).toEqual([0, 1, 2, 3]);
    releases[3]?.();
    await Promise.all(all);
    expect(started).toEqual([0, 1, 2, 3, 4]);
  });
});
