import { expect, it } from "vitest";
import { LockOutcome, LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { open } from "../infra/redis-clients.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { CallFailed, createLockClient, type LockClient, ms } from "../support/lock-client.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { until } from "../support/until.ts";

/*
 * Promises: when Sentinels make a replica the primary, tokens go on growing on every instance, also when the old primary comes back, and
 * leases that the replica knew of stay held.
 */

const { method } = LockService;

/** Takes one lock and gives it back, again and again, and notes what it was given. */
async function takeTurns(client: LockClient, tokens: bigint[], failures: string[], isOver: () => boolean) {
  while (!isOver()) {
    try {
      const { outcome, lock } = await client.acquire("turns", { ttl: ms(1_000), waitTimeout: ms(500) });
      if (outcome !== LockOutcome.ACQUIRED || lock === undefined) continue;
      tokens.push(lock.fencingToken);
      await client.release("turns", lock.fencingToken);
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      failures.push(`${error.code} ${error.reason}`);
    }
  }
}

it("tokens grow on and leases stay when the primary behind Sentinels freezes, and when it comes back", async () => {
  await using group = await startRedisSentinel();
  const hosts = group.sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
  const env = {
    ...{ DATABASE_URL: await freshDatabase(), REDIS_URL: `redis-sentinel://${hosts}/${group.name}` },
    ...{ CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms", REDIS_CONNECT_TIMEOUT: "500ms" },
  };
  await using parts = new AsyncDisposableStack();
  const servers = await Promise.all([startHoldfast(env), startHoldfast(env)]);
  const clients = servers.map((server) => parts.use(createLockClient(parts.use(server).grpcAddress)));
  const [first, other] = clients;
  if (first === undefined || other === undefined) throw new Error("there are no clients");
  await until(() => first.call(method.get, { name: "warm" }), { what: "locks to be decided" });
  const lease = await first.take("leased", { ttl: ms(3_600_000) });
  const held = first.hold("held", { ttl: ms(60_000) });
  const token = (await held.event("acquired")).lock?.fencingToken;
  const primary = open(group.primary.url, { commandTimeoutMs: 10_000 });
  await primary.command("set", "after", "those");
  expect(await primary.command("wait", 1, 9_000)).toBe(1);

  let isOver = false;
  const tokens = clients.map((): bigint[] => []);
  const failures: string[] = [];
  const work = clients.map((client, at) => takeTurns(client, tokens[at] ?? [], failures, () => isOver));
  const more = (what: string) => {
    const before = tokens.map(({ length }) => length);
    return until(() => tokens.every(({ length }, at) => length > (before[at] ?? 0) + 5), { what, timeoutMs: 60_000 });
  };
  await more("turns");
  group.primary.pause();
  await until(() => failures.length > 0, { what: "the loss to be felt" });
  await more("turns after the failover");
  // It would refuse, were it still a replica.
  await open(group.replica.url).command("set", "promoted", "yes");
  group.primary.resume();
  await more("turns after the old primary came back");
  isOver = true;
  await Promise.all(work);

  for (const mine of tokens) expect(mine).toEqual(mine.toSorted((a, b) => (a < b ? -1 : 1)));
  expect(new Set(tokens.flat()).size).toBe(tokens.flat().length);
  for (const failure of failures) expect(failure).toMatch(/^(UNAVAILABLE|DEADLINE_EXCEEDED) /);
  for (const client of clients) {
    expect((await client.call(method.get, { name: "leased" })).reply.lock?.fencingToken).toBe(lease);
    expect((await client.call(method.get, { name: "held" })).reply.lock?.fencingToken).toBe(token);
  }
  expect(held.cases).not.toContain("lost");
});
