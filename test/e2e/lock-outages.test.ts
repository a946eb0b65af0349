import { expect, it } from "vitest";
import { LockLost_Cause, LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { open } from "../infra/redis-clients.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { createLockClient, type LockClient, ms } from "../support/lock-client.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

/*
 * Promises: without who decides no lock is granted, and whoever holds one is told before the lease can be over; tokens never go back, whatever
 * Redis has forgotten; leases in SQL survive a restart.
 */

const { method } = LockService;

const decided = (client: LockClient) =>
  until(async () => (await client.call(method.get, { name: "warm" })).reply, { what: "locks to be decided" });

const failure = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (error: unknown) => error,
  );

it("a lease in SQLite survives a restart, and tokens grow on", async () => {
  await using server = await startHoldfast();
  using client = createLockClient(server.grpcAddress);
  const released = await client.take("a");
  await client.release("a", released);
  const held = await client.take("b", { ttl: ms(3_600_000), owner: "me" });
  await server.restart();
  await decided(client);
  expect((await client.call(method.get, { name: "b" })).reply.lock).toMatchObject({ fencingToken: held, owner: "me" });
  expect(await client.take("a")).toBeGreaterThan(released);
  expect(await client.release("b", held)).toBe(true);
});

it("tokens grow on when Redis has forgotten everything", async () => {
  await using redis = await startRedis();
  await using server = await startHoldfast({ REDIS_URL: redis.url });
  using client = createLockClient(server.grpcAddress);
  await decided(client);
  const tokens = [await client.take("a")];
  const admin = open(redis.url);
  await admin.command("flushall");
  tokens.push(await until(() => client.take("a"), { what: "a lock after the flush" }));
  await redis.kill();
  redis.forget();
  await redis.restart();
  tokens.push(await until(() => client.take("a"), { what: "a lock after the restart" }));
  expect(tokens.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(tokens);
  expect(new Set(tokens).size).toBe(3);
});

it("health and metrics say which lock masters do not vote, and why", async () => {
  await using parts = new AsyncDisposableStack();
  const masters = await Promise.all([1, 2, 3].map(async () => parts.use(await startRedis())));
  // Checked each minute at rest: what is told sooner is told because a call met it.
  await using server = await startHoldfast({
    LOCK_AUTHORITY: "redlock",
    LOCK_REDLOCK_URLS: masters.map(({ url }) => url).join(","),
    CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms",
  });
  using client = createLockClient(server.grpcAddress);
  await decided(client);
  await client.take("a", { ttl: ms(3_600_000) });
  const locks = async () => {
    const reply = await fetch(`${server.httpUrl}/health`);
    const { components } = (await reply.json()) as { components: { name: string; state: string; message: string }[] };
    const { state, message } = components.find(({ name }) => name === "lock") ?? { state: "", message: "" };
    return `${state} ${message ?? ""}`;
  };
  const votes = async () => {
    const page = await (await fetch(`${server.httpUrl}/metrics`)).text();
    return [...page.matchAll(/^holdfast_lock_master_votes\{master="(\d)"\} (\d)$/gm)].map(
      ([, at, vote]) => `${at}:${vote}`,
    );
  };
  expect(await until(votes, { what: "votes" })).toEqual(["1:1", "2:1", "3:1"]);
  const second = masters[1];
  await second?.kill();
  const away =
    /DEGRADED locks are decided, but 1 of the 3 lock masters \(LOCK_REDLOCK_URLS\) do not vote: number 2: it does not answer/i;
  const seen = async (state: RegExp) => {
    await failure(client.call(method.get, { name: "a" }));
    return state.test(await locks());
  };
  await until(() => seen(away), { what: "health to tell which is away" });
  expect(await votes()).toEqual(["1:1", "2:0", "3:1"]);
  second?.forget();
  await second?.restart();
  const waits = /degraded .* number 2: leases of before it began may last/i;
  await until(async () => waits.test(await locks()), { what: "health to tell that it waits" });
  await masters[0]?.kill();
  const none = /unhealthy .*fewer than 2 of 3 lock masters can be asked; 2 of the 3/i;
  await until(() => seen(none), { what: "health to tell that nobody decides" });
});

it("while Redis is frozen no lock is granted, a Hold is lost in time, and all goes on when it is back", async () => {
  await using redis = await startRedis();
  await using server = await startHoldfast({ REDIS_URL: redis.url, CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" });
  using client = createLockClient(server.grpcAddress);
  await decided(client);
  const token = await client.take("taken", { ttl: ms(3_600_000) });
  using held = client.hold("held", { ttl: ms(1_000) });
  await held.event("acquired");
  using waiting = client.hold("taken");
  await waiting.event("waiting");
  redis.pause();
  expect((await held.event("lost")).cause).toBe(LockLost_Cause.AUTHORITY_UNAVAILABLE);
  expect(await held.ended).toBeUndefined();
  const away = { code: "UNAVAILABLE", reason: "LOCK_AUTHORITY_UNAVAILABLE", hasRetryInfo: true };
  expect(await failure(client.take("other"))).toMatchObject(away);
  expect(await failure(client.renew("taken", token))).toMatchObject(away);
  expect(await failure(client.release("taken", token))).toMatchObject(away);
  expect(await failure(client.call(method.get, { name: "taken" }))).toMatchObject(away);
  redis.resume();
  await until(() => client.renew("taken", token), { what: "the lease to be renewed" });
  await until(() => client.take("held"), { what: "the lock that was lost to be free" });
});
