import { setTimeout as delay } from "node:timers/promises";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createRandom } from "../support/load-child.ts";
import { createLockClient } from "../support/lock-client.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { type SkewedClock, skewedClock } from "../support/skewed-clock.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { checkLocks, type LockVerdict } from "./lock-checker.ts";
import { type Clients, startClients } from "./lock-clients.ts";
import { countsOf, type Darkness, type LockCounts, monotonicMs, type Said, type WriteKind } from "./lock-history.ts";
import { writeLate } from "./lock-late-write.ts";
import { historyOf } from "./lock-left.ts";
import type { WriteKinds } from "./lock-writes.ts";
import { durableConfig } from "./outage.ts";

export type ChaosAuthority = "sqlite" | "postgres" | "redis" | "redlock";

export type LockFaultKind =
  | "a client killed"
  | "a client frozen"
  | "an instance killed"
  | "an instance frozen"
  | "a clock set"
  | "Redis frozen"
  | "Redis restarted empty"
  | "an instance cut off from Redis"
  | "a write to Redis held up";

export interface LockChaosOptions {
  readonly authority: ChaosAuthority;
  readonly seed: number;
  /** One after the other. Default: those that can befall this authority. */
  readonly faults?: readonly LockFaultKind[];
  /** How many of the eight workers of a client take locks with streams. Default: 3. */
  readonly holders?: number;
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  /** What is written under locks. Default: all that there is in its topology. */
  readonly kinds?: readonly WriteKind[];
}

export interface LockChaosReport {
  readonly verdict: LockVerdict;
  readonly counts: LockCounts;
  /** What clients ended with that nobody had killed, and what servers call their own mistake. */
  readonly problems: readonly string[];
}

const CALM_MS = 250;
/** Longer than any lease. */
const FROZEN_MS = 1_500;
/** By so much the clocks of the instances are ahead, or behind. */
const SKEWS_MS = [7_000, -7_000];
const OF_ALL: readonly LockFaultKind[] = [
  "a client killed",
  "an instance frozen",
  "a client frozen",
  "an instance killed",
  // Last: an SQLite that starts with another clock than before ends leases by that.
  "a clock set",
];
const OF_MASTERS: readonly LockFaultKind[] = [
  "Redis frozen",
  "Redis restarted empty",
  "an instance cut off from Redis",
];
const FAULTS: Readonly<Record<ChaosAuthority, readonly LockFaultKind[]>> = {
  sqlite: OF_ALL,
  postgres: OF_ALL,
  redis: [...OF_ALL, ...OF_MASTERS, "a write to Redis held up"],
  redlock: [...OF_ALL, ...OF_MASTERS],
};

interface Backend {
  /** Of each instance. */
  readonly envs: readonly Readonly<Record<string, string>>[];
  /** The Redis that decides about locks, or several. */
  readonly masters: readonly RedisServer[];
  /** By which the last of the instances reaches them. */
  readonly ways: readonly TcpProxy[];
  readonly writes: WriteKinds;
}

const IN_SQL: WriteKinds = { kinds: ["message", "state", "durable"], readable: ["durable"] };
/** What is cached is only there, and what is durable has copies there. */
export const IN_REDIS: WriteKinds = { kinds: ["message", "state", "durable", "cached"], readable: ["cached"] };

/**
 * Clients take locks and write under their protection while they, the instances and Redis are killed and frozen; then the
 * account.
 */
export async function runLockChaos(options: LockChaosOptions): Promise<LockChaosReport> {
  const { authority, seed, root, holders = 3 } = options;
  await using parts = new AsyncDisposableStack();
  const { envs, masters, ways, writes } = await backendOf(authority, parts);
  const clocks = envs.map(() => parts.use(skewedClock()));
  for (const [at, clock] of clocks.entries()) clock.set(SKEWS_MS[at] ?? 0);
  const servers = await Promise.all(envs.map((env, at) => startHoldfast({ ...env, ...clocks[at]?.env }, root)));
  for (const server of servers) parts.use(server);
  await Promise.all(servers.map(decides));
  const { kinds = writes.kinds } = options;
  const clients = parts.use(startClients({ servers, seed, holders, writes: { ...writes, kinds } }));
  await clients.add();
  await clients.add();
  const lossesMs: number[] = [];
  const dark: Darkness[] = [];
  /** What the run itself wrote. */
  const told: Said[] = [];
  const defects: string[] = [];
  const random = createRandom(seed);
  let last = "the start";
  for (const fault of options.faults ?? FAULTS[authority]) {
    await clients.goOn(`after ${last}`);
    last = fault;
    await delay(CALM_MS);
    // An instance that starts again begins its log anew.
    defects.push(...servers.flatMap(defectsOf));
    await inflict(fault, { servers, clients, clocks, masters, ways, lossesMs, dark, told, victim: random(6) });
  }
  await clients.goOn(`after ${last}`);
  await clients.stop();
  const said = [...clients.said(), ...told];
  const history = await historyOf(said, servers, { lossesMs, emptiedMs: lossesMs, dark });
  const problems = [...clients.problems(), ...new Set([...defects, ...servers.flatMap(defectsOf)])];
  return { verdict: checkLocks(history), counts: countsOf(said), problems };
}

async function backendOf(authority: ChaosAuthority, parts: AsyncDisposableStack): Promise<Backend> {
  const HOLDFAST_CONFIG = durableConfig(parts);
  if (authority === "sqlite") return { envs: [{ HOLDFAST_CONFIG }], masters: [], ways: [], writes: IN_SQL };
  const sql = { HOLDFAST_CONFIG, DATABASE_URL: await freshDatabase() };
  if (authority === "postgres") return { envs: [sql, sql], masters: [], ways: [], writes: IN_SQL };
  const starting = Array.from({ length: authority === "redis" ? 1 : 3 }, () => startRedis());
  const masters = await Promise.all(starting);
  for (const master of masters) parts.use(master);
  const ways = await Promise.all(masters.map(({ port }) => startTcpProxy(port)));
  for (const way of ways) parts.use(way);
  const envs = [masters, ways].map((servers) => {
    const urls = servers.map(({ port }) => `redis://127.0.0.1:${port}`).join(",");
    const own = authority === "redis" ? { REDIS_URL: urls } : { LOCK_AUTHORITY: "redlock", LOCK_REDLOCK_URLS: urls };
    const impatient = { REDIS_COMMAND_TIMEOUT: "500ms", CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" };
    return { ...sql, ...own, ...impatient };
  });
  return { envs, masters, ways, writes: authority === "redis" ? IN_REDIS : IN_SQL };
}

/** What a server says of calls that nobody can have made wrong. */
export function defectsOf(server: HoldfastProcess): readonly string[] {
  const lines = server.output().split("\n");
  return lines.filter((line) => line.includes('"code":"INTERNAL"')).slice(0, 2);
}

/** Until it decides about locks. */
export async function decides({ grpcAddress }: HoldfastProcess): Promise<void> {
  using client = createLockClient(grpcAddress);
  await until(() => client.call(LockService.method.get, { name: "ready" }), { what: "locks to be decided" });
}

interface Scene {
  readonly servers: readonly HoldfastProcess[];
  readonly clients: Clients;
  readonly clocks: readonly SkewedClock[];
  readonly masters: readonly RedisServer[];
  readonly ways: readonly TcpProxy[];
  readonly lossesMs: number[];
  readonly dark: Darkness[];
  readonly told: Said[];
  readonly victim: number;
}

async function inflict(
  fault: LockFaultKind,
  { servers, clients, clocks, masters, ways, lossesMs, dark, told, victim }: Scene,
): Promise<void> {
  const server = servers[victim % servers.length];
  if (server === undefined) throw new Error("there is no server");
  const redis = masters[victim % masters.length];
  switch (fault) {
    case "a client killed":
      await clients.kill(victim);
      await clients.add();
      return;
    case "a client frozen":
      await frozen(clients.pick(victim));
      return;
    case "an instance killed":
      await server.kill();
      await server.restart();
      await decides(server);
      return;
    case "an instance frozen":
      await frozen(server);
      return;
    case "a clock set":
      for (const [at, clock] of clocks.entries()) clock.set(-2 * (SKEWS_MS[at] ?? 0));
      await delay(FROZEN_MS);
      return;
    case "Redis frozen": {
      redis?.pause();
      const others = masters.filter((master) => master !== redis).slice(1);
      // Of several, a majority decides without it, as long as there is one.
      if (others.length > 0) await delay(FROZEN_MS);
      for (const other of others) other.pause();
      const fromMs = monotonicMs();
      await delay(FROZEN_MS);
      dark.push({ fromMs, toMs: monotonicMs(), kinds: ["cached"] });
      for (const master of [redis, ...others]) master?.resume();
      return;
    }
    case "Redis restarted empty":
      if (redis === undefined) return;
      await redis.kill();
      // One of several: a majority still knows.
      if (masters.length === 1) lossesMs.push(monotonicMs());
      redis.forget();
      await redis.restart();
      return;
    case "an instance cut off from Redis":
      for (const way of ways) way.cut();
      await delay(FROZEN_MS);
      for (const way of ways) way.restore();
      return;
    case "a write to Redis held up":
      await writeLate({
        ...{ far: servers.at(-1) ?? server, near: servers[0] ?? server, say: (said) => told.push(said) },
        ways,
      });
      return;
  }
}

async function frozen(it: { pause(): void; resume(): void }): Promise<void> {
  it.pause();
  await delay(FROZEN_MS);
  it.resume();
}
