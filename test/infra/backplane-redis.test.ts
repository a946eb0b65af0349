import { expect, it } from "vitest";
import { createRedisBackplane } from "../../src/infra/backplane-redis.ts";
import { createRedis, defineScript, type Redis } from "../../src/infra/redis.ts";
import { type BackplaneWorld, describeBackplane } from "../conformance/backplane.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

async function openWorld(): Promise<BackplaneWorld> {
  const server = await startRedis();
  const proxy = await startTcpProxy(server.port);
  const clients: Redis[] = [];
  return {
    join: () => {
      const redis = connectTo(proxy.port);
      clients.push(redis);
      return createRedisBackplane({ redis, instanceId: `i${clients.length}`, heartbeatMs: 250 });
    },
    faults: {
      killed: { begin: server.kill, end: server.restart },
      frozen: { begin: server.pause, end: server.resume },
      "cut off": { begin: proxy.cut, end: proxy.restore },
      "silent on the network": { begin: proxy.freeze, end: proxy.thaw },
    },
    close: async () => {
      await Promise.all(clients.map((redis) => redis.close()));
      await proxy.close();
      await server.stop();
    },
  };
}

function connectTo(port: number): Redis {
  const nodes = [{ host: "127.0.0.1", port }];
  return createRedis({ mode: "single", nodes, commandTimeoutMs: 500, connectTimeoutMs: 1_000 });
}

describeBackplane("the backplane over Redis", openWorld, ["killed", "frozen", "cut off", "silent on the network"]);

it("delivers what a script publishes inside its own atomic step", async () => {
  await using server = await startRedis();
  const [redisA, redisB] = [connectTo(server.port), connectTo(server.port)];
  const a = createRedisBackplane({ redis: redisA, instanceId: "a", heartbeatMs: 250 });
  const b = createRedisBackplane({ redis: redisB, instanceId: "b", heartbeatMs: 250 });
  const heard: string[] = [];
  const own: string[] = [];
  a.subscribe("cache", (message) => own.push(message));
  b.subscribe("cache", (message) => heard.push(message));
  await until(() => a.live && b.live, { what: "both to be live" });
  const bump = defineScript({
    name: "bump",
    keys: 1,
    lua: "local v = redis.call('INCR', KEYS[1]) redis.call('PUBLISH', ARGV[1], ARGV[2] .. v .. ARGV[3]) return v",
  });
  const { channel, payload } = a.frame("cache", "set ");
  await redisA.run(bump, ["k"], [channel, payload, " k"]);
  await until(() => heard.length > 0, { what: "the message" });
  await b.publish("cache", "end");
  await until(() => own.length > 0, { what: "the answer" });
  expect([heard, own]).toEqual([["set 1 k"], ["end"]]);
  await Promise.all([a.close(), b.close(), redisA.close(), redisB.close()]);
});
