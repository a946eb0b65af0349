import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Redis as Client } from "ioredis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Failure } from "../../src/infra/failure.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { type OpenRedisAuthorities, openRedisAuthorities } from "./redis-authorities.ts";
import { withBugs } from "./spoilt-redis.ts";

/*
 * Promises: whatever a Redis says that cannot serve now, callers are told that nobody can decide (LOCK_AUTHORITY_UNAVAILABLE), never
 * that the server has a defect, and all goes on by itself when Redis does.
 */

const AWAY = { reason: "LOCK_AUTHORITY_UNAVAILABLE", kind: "unavailable" };

interface Refusal {
  readonly says: string;
  /** Brings it about, and returns what ends it. */
  readonly begin: () => Promise<() => Promise<unknown>>;
}

let server: RedisServer;
/** A connection from before anything went wrong. */
let admin: Client;
let opened: OpenRedisAuthorities;

function connect(): Client {
  // Else it asks first whether Redis is ready, and gives up.
  const client = new Client(server.url, { enableReadyCheck: false, retryStrategy: () => null });
  return client.on("error", () => undefined);
}

const set = (...settings: readonly (string | number)[]) => admin.call("config", "set", ...settings);
const acl = (...rules: readonly string[]) => admin.call("acl", "setuser", "default", ...rules);

/** A command that takes until its answer is of no interest. */
function occupy(name: string, ...args: readonly (string | number)[]): Client {
  const client = connect();
  client.call(name, ...args).catch(() => undefined);
  return client;
}

const refusals: readonly Refusal[] = [
  {
    says: "NOREPLICAS",
    begin: async () => {
      await set("min-replicas-to-write", 1);
      return () => set("min-replicas-to-write", 0);
    },
  },
  {
    says: "MISCONF",
    begin: async () => {
      mkdirSync(join(server.directory, "taken"));
      await set("dbfilename", "taken", "save", "3600 1");
      await admin.call("set", "x", "y");
      await admin.call("bgsave");
      const failed = async () => String(await admin.call("info", "persistence")).includes("status:err");
      await until(failed, { what: "a snapshot to fail" });
      return () => set("dbfilename", "dump.rdb", "save", "", "stop-writes-on-bgsave-error", "no");
    },
  },
  {
    says: "BUSY",
    begin: async () => {
      await set("busy-reply-threshold", 1);
      const client = occupy("eval", "while true do end", 0);
      const busy = () => admin.call("get", "x").then(() => false, isSaying("BUSY"));
      await until(busy, { what: "a script to be in the way" });
      return async () => {
        await admin.call("script", "kill");
        client.disconnect();
      };
    },
  },
  {
    says: "LOADING",
    begin: async () => {
      // A tenth of a second for each key that it reads, and it answers in between.
      await set("key-load-delay", 100_000, "loading-process-events-interval-bytes", 1_024);
      await admin.call("mset", ...Array.from({ length: 10 }, (_, at) => [`x${at}`, randomBytes(2_048)]).flat());
      const client = occupy("debug", "reload");
      const loading = () => admin.call("get", "x").then(() => false, isSaying("LOADING"));
      await until(loading, { what: "it to load", intervalMs: 1 });
      return async () => client.disconnect();
    },
  },
  {
    says: "READONLY",
    begin: async () => {
      await admin.call("replicaof", "127.0.0.1", "1");
      return () => admin.call("replicaof", "no", "one");
    },
  },
  {
    says: "MASTERDOWN",
    begin: async () => {
      await set("replica-serve-stale-data", "no");
      await admin.call("replicaof", "127.0.0.1", "1");
      return () => admin.call("replicaof", "no", "one");
    },
  },
  {
    says: "NOPERM to run scripts",
    begin: async () => {
      await acl("-evalsha", "-eval");
      return () => acl("+@all");
    },
  },
  {
    says: "NOPERM inside of a script",
    begin: async () => {
      await acl("-get", "-hget", "-hmget");
      return () => acl("+@all");
    },
  },
  {
    says: "NOPERM to touch the keys",
    begin: async () => {
      await acl("resetkeys", "~other");
      return () => acl("allkeys");
    },
  },
  {
    says: "that its connections were closed",
    begin: async () => {
      const timer = setInterval(
        () => void admin.call("client", "kill", "type", "normal", "skipme", "yes").catch(() => {}),
        5,
      );
      return async () => clearInterval(timer);
    },
  },
];

function isSaying(code: string): (error: unknown) => boolean {
  return (error) => error instanceof Error && error.message.startsWith(code);
}

beforeAll(async () => {
  server = await startRedis({ args: ["--enable-debug-command", "yes", "--enable-protected-configs", "yes"] });
  admin = connect();
  opened = await openRedisAuthorities({ url: server.url });
});

afterAll(async () => {
  await opened?.[Symbol.asyncDispose]();
  admin?.disconnect();
  await server?.stop();
});

const taken = async (name: string) => {
  const answer = await opened.instances[0].authority.take(takeOrder(name, { ttlMs: 3_600_000 }));
  if (answer.kind !== "granted") throw new Error(`${name} is ${answer.kind}`);
  return answer.lease.grant;
};

it.each(refusals)("a Redis that says $says cannot decide, and then can again", async ({ says, begin }) => {
  const [{ authority }] = opened.instances;
  const held = await until(() => taken(`held/${says}`), { what: "Redis to decide" });
  const end = await begin();
  const all = { prefix: "", owner: undefined, mayUse: () => true, limit: 10, after: undefined };
  const ask = () => [
    authority.take(takeOrder(`new/${says}`)),
    authority.take(takeOrder(`named/${says}`, { request: named("r") })),
    ...[authority.renew(renewOrder(held)), authority.release(releaseOrder(held, { streamId: "another" }))],
    ...[authority.look(held.name), authority.list(all), authority.remember(held.name, named("text"), "text")],
  ];
  const failures: unknown[] = [];
  const refused = async () => {
    const answers = await Promise.allSettled(ask());
    failures.push(...answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : [])));
    return answers[0]?.status === "rejected";
  };
  await until(refused, { what: "a lock to be refused" });
  await end();
  for (const failure of failures) expect(failure).toMatchObject(AWAY);
  await until(() => taken(`after/${says}`), { what: "Redis to decide again" });
});

it("a script that is killed decided nothing, and says so", async () => {
  const endless = { script: "lock-take", text: "local now = tonumber(ARGV[1])", instead: "while true do end" };
  await using spoilt = await openRedisAuthorities({ url: server.url, spoil: withBugs([endless]) });
  await set("busy-reply-threshold", 1);
  const asked = spoilt.instances[0].authority.take(takeOrder("nightly"));
  const failed = expect(asked).rejects.toMatchObject(AWAY);
  await until(() => admin.call("script", "kill"), { what: "the script to be killed" });
  await failed;
});

it("a node of a cluster that has no slots cannot decide", async () => {
  await using node = await startRedis({ args: ["--cluster-enabled", "yes"] });
  await using of = await openRedisAuthorities({ url: node.url });
  await expect(of.instances[0].authority.take(takeOrder("nightly"))).rejects.toMatchObject(AWAY);
});

it("a life of Redis that SQL undid for the sake of others is begun by the next who asks", async () => {
  let undone = 0;
  const spoilHeads = (heads: Heads): Heads => ({
    ...heads,
    nextEpoch: async (mode, beyond) => {
      if (undone++ === 0) throw new Failure("conflict", "SQL_CONFLICT", "Postgres undid the transaction");
      return heads.nextEpoch(mode, beyond);
    },
  });
  await using of = await openRedisAuthorities({ spoilHeads });
  await expect(of.instances[0].authority.take(takeOrder("nightly"))).rejects.toMatchObject(AWAY);
  expect(await of.instances[0].authority.take(takeOrder("nightly"))).toMatchObject({ kind: "granted" });
});
