import { expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createRedis, parseRedisUrl } from "../../src/infra/redis.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

function connect(sentinels: readonly { readonly host: string; readonly port: number }[], name: string) {
  const hosts = sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
  const options = parseRedisUrl(`redis-sentinel://${hosts}/${name}/1`);
  if (typeof options === "string") throw new Error(options);
  return createRedis({ mode: "sentinel", nodes: [], commandTimeoutMs: 500, connectTimeoutMs: 1_000, ...options });
}

it.each(["killed", "frozen"])("writes to the promoted replica after the primary was %s", async (fault) => {
  await using group = await startRedisSentinel();
  const redis = connect(group.sentinels, group.name);
  const runs: string[] = [];
  redis.onConnected((runId) => runs.push(runId));
  expect(await redis.command("set", "k", "before")).toBe("OK");
  if (fault === "killed") await group.primary.kill();
  else group.primary.pause();
  await expect(redis.command("set", "k", "lost")).rejects.toBeInstanceOf(UnavailableError);
  await until(() => redis.command("set", "k", "after"), { what: "a write after the failover", timeoutMs: 60_000 });
  expect(new Set(runs).size).toBeGreaterThan(1);
  // The one that came to life again with the old role is not written to.
  if (fault === "frozen") group.primary.resume();
  expect((await redis.info()).runId).toBe(runs.at(-1));
  expect(String(await redis.command("get", "k"))).toBe("after");
  await redis.close();
});

it("finds the primary when the first Sentinel it is told of is away", async () => {
  await using group = await startRedisSentinel();
  await using gone = await startRedis();
  await gone.kill();
  const redis = connect([{ host: "127.0.0.1", port: gone.port }, ...group.sentinels], group.name);
  await until(() => redis.command("set", "k", "v"), { what: "a write" });
  await redis.close();
});

it("follows an operator's failover, in which the old primary stays alive", async () => {
  await using group = await startRedisSentinel();
  const redis = connect(group.sentinels, group.name);
  const first = (await redis.info()).runId;
  const [sentinel] = group.sentinels;
  if (sentinel === undefined) throw new Error("no Sentinel");
  const operator = createRedis({ mode: "single", nodes: [sentinel], commandTimeoutMs: 5_000, connectTimeoutMs: 5_000 });
  expect(await operator.command("sentinel", "failover", group.name)).toBe("OK");
  await until(async () => (await redis.info()).runId !== first, { what: "the new primary", timeoutMs: 60_000 });
  await until(() => redis.command("set", "k", "v"), { what: "a write", timeoutMs: 60_000 });
  await Promise.all([operator.close(), redis.close()]);
});
