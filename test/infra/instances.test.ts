import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { createInstances, type Instance, type Instances, localTruth, strangers } from "../../src/infra/instances.ts";
import { createRedis, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const heartbeatMs = 50;
const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

function connect(url: string): Redis {
  const target = parseRedisUrl(url);
  if (typeof target === "string") throw new Error(target);
  const { mode = "single", nodes = [], ...rest } = target;
  const redis = createRedis({ ...rest, mode, nodes, commandTimeoutMs: 2000, connectTimeoutMs: 2000 });
  open.push(() => redis.close());
  return redis;
}

function join(redis: Redis, id: string, truth = id): Instances {
  const self: Instance = { id, localSql: truth !== "shared", truth, started: 7 };
  const instances = createInstances({ redis, self, heartbeatMs });
  open.push(() => instances.close());
  return instances;
}

const ids = ({ current }: Instances) => current.map(({ id }) => id).join();

describe("instances that share a Redis", () => {
  it("see each other, sorted, and with what each holds", async () => {
    const redis = connect(await freshRedis());
    const b = join(redis, "b");
    expect(ids(b)).toBe("b");
    const a = join(redis, "a", "shared");
    await until(() => ids(a) === "a,b" && ids(b) === "a,b", { what: "both to see both" });
    expect(b.current[0]).toEqual({ id: "a", localSql: false, truth: "shared", started: 7 });
  });

  it("tell of a change once, and notice at once who leaves", async () => {
    const redis = connect(await freshRedis());
    const a = join(redis, "a");
    const seen: string[] = [];
    a.onChange(() => seen.push(ids(a)));
    const b = join(redis, "b");
    await until(() => ids(a) === "a,b", { what: "b to be seen" });
    await b.close();
    await until(() => ids(a) === "a", { what: "b to be gone" });
    expect(seen).toEqual(["a,b", "a"]);
    expect(await redis.command("smembers", "holdfast:instances")).toEqual(["a"]);
  });

  it("forget one that died without a word, when its heartbeat has run out", async () => {
    const redis = connect(await freshRedis());
    const dead = { id: "dead", localSql: true, truth: "x", started: 1 };
    await redis.command("sadd", "holdfast:instances", "dead");
    await redis.command("set", "holdfast:instance:dead", JSON.stringify(dead), "PX", heartbeatMs * 3);
    const a = join(redis, "a");
    await until(() => ids(a) === "a,dead", { what: "the dead one to be seen while it seems alive" });
    await until(() => ids(a) === "a", { what: "it to be forgotten" });
  });

  it("count one that Redis has just lost for three heartbeats more", async () => {
    const redis = connect(await freshRedis());
    await redis.command("sadd", "holdfast:instances", "other");
    await redis.command("set", "holdfast:instance:other", JSON.stringify({ id: "other" }));
    const a = join(redis, "a");
    const seen: unknown[] = [];
    a.onChange(() => seen.push([ids(a), a.lastSeen]));
    await until(() => ids(a) === "a,other", { what: "the other to be seen" });
    await redis.command("del", "holdfast:instance:other");
    await until(() => ids(a) === "a", { what: "it to be missed" });
    expect(seen).toEqual([
      ["a,other", 2],
      ["a", 2],
    ]);
    await until(() => a.lastSeen === 1, { what: "it to be forgotten" });
  });

  it("find each other again after Redis lost everything, and are alone meanwhile", async () => {
    const server = await startRedis();
    onTestFinished(() => server.stop());
    const [a, b] = [join(connect(server.url), "a"), join(connect(server.url), "b")];
    await until(() => ids(a) === "a,b", { what: "both" });
    await server.kill();
    await until(() => ids(a) === "a" && ids(b) === "b", { what: "each to be alone" });
    await server.restart();
    await until(() => ids(a) === "a,b" && ids(b) === "a,b", { what: "both again" });
  });

  it("are not misled by what else stands there", async () => {
    const redis = connect(await freshRedis());
    await redis.command("sadd", "holdfast:instances", "odd", "odder");
    await redis.command("set", "holdfast:instance:odd", "not json");
    await redis.command("set", "holdfast:instance:odder", "[1]");
    const a = join(redis, "a");
    const b = join(redis, "b");
    await until(() => ids(a) === "a,b" && ids(b) === "a,b", { what: "those that make sense" });
  });
});

describe("strangers", () => {
  const one = (id: string, truth: string): Instance => ({ id, localSql: truth !== "shared", truth, started: 0 });

  it("are those with another truth, where one's own is local", () => {
    const self = one("me", "mine");
    expect(
      strangers([self, one("b", "other"), one("c", "shared"), one("old", "mine")], self).map(({ id }) => id),
    ).toEqual(["b", "c"]);
  });

  it("are nobody to one whose truth is shared", () => {
    const self = one("me", "shared");
    expect(strangers([self, one("b", "other")], self)).toEqual([]);
  });
});

describe("the truth of a data directory", () => {
  it("is the same each time, and another one elsewhere", () => {
    const [a, b] = [scratchDirectory("a"), scratchDirectory("b")];
    onTestFinished(() => {
      for (const directory of [a, b]) directory.remove();
    });
    expect(localTruth(a.path)).toBe(localTruth(`${a.path}/.`));
    expect(localTruth(a.path)).not.toBe(localTruth(b.path));
  });
});
