import { setTimeout as delay } from "node:timers/promises";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { CallFailed, createLockClient, ms } from "../support/lock-client.ts";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { atScale } from "../support/scale.ts";
import { skewedClock } from "../support/skewed-clock.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { checkLocks, type LockVerdict } from "./lock-checker.ts";
import { startClients } from "./lock-clients.ts";
import { countsOf, type Darkness, type LockCounts, monotonicMs } from "./lock-history.ts";
import { historyOf } from "./lock-left.ts";
import { decides, defectsOf, IN_REDIS } from "./lock-run.ts";
import { durableConfig, metric } from "./outage.ts";

export type FailoverFault =
  | "an instance cut off from Redis"
  | "Redis frozen, and an instance stopped meanwhile"
  | "Redis killed and back empty, and an instance killed meanwhile"
  | "neither Redis nor Postgres reached";

const FAULTS: readonly FailoverFault[] = [
  "an instance cut off from Redis",
  "Redis frozen, and an instance stopped meanwhile",
  "neither Redis nor Postgres reached",
  "Redis killed and back empty, and an instance killed meanwhile",
];

export interface FailoverChaosOptions {
  readonly faults?: readonly FailoverFault[];
  /** Bugs, and whatever else is to be otherwise in the server's code. */
  readonly patches?: readonly Patch[];
}

export interface FailoverChaosReport {
  readonly verdict: LockVerdict;
  readonly counts: LockCounts;
  readonly problems: readonly string[];
}

/** Clients always hold some lock, so Redis decides again only by and by; nobody waits ten minutes for that here. */
const PATIENCE: Patch = {
  file: "src/lock/authority/failover-switch.ts",
  text: "patientChecks: 600",
  instead: "patientChecks: 35",
};
/** What takes seconds takes fractions of them. */
const HASTE: readonly Patch[] = [
  {
    file: "src/lock/authority/failover-switch.ts",
    text: "checkMs: 1_000, unwellChecks: 3, wellChecks: 30, patientChecks: 600",
    instead: "checkMs: 100, unwellChecks: 3, wellChecks: 5, patientChecks: 10",
  },
  { file: "src/lock/authority/sql-fallback.ts", text: "LAPSE_MS = 60_000", instead: "LAPSE_MS = 3_000" },
  { file: "src/lock/authority/reigns.ts", text: "TRUST_MS = 3_000", instead: "TRUST_MS = 1_000" },
  { file: "src/lock/authority/reigns.ts", text: "WATCH_MS = 1_000", instead: "WATCH_MS = 250" },
];
const SKEWS_MS = [7_000, -7_000];
const SEED = 11;
const LONGEST_MS = 120_000;

interface Scene {
  readonly redis: RedisServer;
  /** By which the second instance reaches Redis, and by which both reach Postgres. */
  readonly way: TcpProxy;
  readonly sqlWay: TcpProxy;
  readonly one: HoldfastProcess;
  readonly other: HoldfastProcess;
  /** Until locks are granted again. */
  readonly goesOn: (what: string) => Promise<void>;
  readonly dark: Darkness[];
  /** When Redis lost what was in it. */
  readonly emptiedMs: number[];
}

/** Clients take, renew, hold and give back locks on two instances while Redis fails in all ways, and Postgres takes over. */
export async function runFailoverChaos(options: FailoverChaosOptions = {}): Promise<FailoverChaosReport> {
  await using parts = new AsyncDisposableStack();
  const copy = parts.use(plantBug([...atScale<readonly Patch[]>([PATIENCE], HASTE), ...(options.patches ?? [])]));
  const redis = parts.use(await startRedis());
  const way = parts.use(await startTcpProxy(redis.port));
  const database = new URL(await freshDatabase());
  const sqlWay = parts.use(await startTcpProxy(Number(database.port)));
  database.port = String(sqlWay.port);
  const HOLDFAST_CONFIG = durableConfig(parts);
  const start = async (redisPort: number, skewMs: number) => {
    const clock = parts.use(skewedClock());
    clock.set(skewMs);
    const env = {
      HOLDFAST_CONFIG,
      ...{ DATABASE_URL: database.href, REDIS_URL: `redis://127.0.0.1:${redisPort}`, LOCK_FALLBACK: "postgres" },
      ...{ REDIS_COMMAND_TIMEOUT: "300ms", CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" },
    };
    return parts.use(await startHoldfast({ ...env, ...clock.env }, copy.path));
  };
  const [skewMs = 0, otherSkewMs = 0] = SKEWS_MS;
  const [one, other] = await Promise.all([start(redis.port, skewMs), start(way.port, otherSkewMs)]);
  const servers = [one, other];
  await Promise.all(servers.map(decides));
  const clients = parts.use(startClients({ servers, seed: SEED, holders: 3, writes: IN_REDIS }));
  for (let count = atScale(2, 1); count > 0; count--) await clients.add();
  const dark: Darkness[] = [];
  const defects: string[] = [];
  const emptiedMs: number[] = [];
  const goesOn = (what: string) => clients.goOn(what, LONGEST_MS);
  const scene = { redis, way, sqlWay, one, other, goesOn, dark, emptiedMs };
  for (const fault of options.faults ?? FAULTS) {
    await decidedBy(one, "redis");
    await scene.goesOn(`before: ${fault}`);
    await inflict(fault, scene);
    defects.push(...servers.flatMap(defectsOf));
  }
  await decidedBy(one, "redis");
  await scene.goesOn("at the end");
  await clients.stop();
  const said = clients.said();
  // Redis loses what it knew, and that is forgiven nothing.
  const history = await historyOf(said, servers, { lossesMs: [], emptiedMs, dark, isHandedOver: true });
  return {
    ...{ verdict: checkLocks(history), counts: countsOf(said) },
    problems: [...clients.problems(), ...new Set([...defects, ...servers.flatMap(defectsOf)])],
  };
}

async function inflict(fault: FailoverFault, scene: Scene): Promise<void> {
  const { redis, way, sqlWay, one, other, goesOn, dark, emptiedMs } = scene;
  switch (fault) {
    case "an instance cut off from Redis":
      way.cut();
      await decidedBy(one, "postgres");
      await goesOn("Postgres took over for one instance");
      way.restore();
      return;
    case "Redis frozen, and an instance stopped meanwhile":
      redis.pause();
      other.pause();
      await decidedBy(one, "postgres");
      await goesOn("Postgres took over from a frozen Redis");
      // Both go on where they were.
      redis.resume();
      other.resume();
      await decidedBy(other, "postgres");
      return;
    case "Redis killed and back empty, and an instance killed meanwhile":
      await redis.kill();
      await decidedBy(other, "postgres");
      await one.kill();
      await goesOn("Postgres took over from a Redis that was killed");
      emptiedMs.push(monotonicMs());
      redis.forget();
      await redis.restart();
      await one.restart();
      return;
    case "neither Redis nor Postgres reached": {
      redis.pause();
      sqlWay.cut();
      await Promise.all([one, other].map(nobodyDecides));
      const fromMs = monotonicMs();
      await delay(atScale(5_000, 1_000));
      dark.push({ fromMs, toMs: monotonicMs(), kinds: IN_REDIS.kinds });
      redis.resume();
      sqlWay.restore();
      return;
    }
  }
}

async function decidedBy({ httpUrl }: HoldfastProcess, authority: string): Promise<void> {
  const sample = `holdfast_lock_authority{authority="${authority}"}`;
  const decides = async () => (await metric(httpUrl, sample)) === 1;
  await until(decides, { what: `${authority} to decide`, timeoutMs: LONGEST_MS });
}

async function nobodyDecides({ grpcAddress }: HoldfastProcess): Promise<void> {
  using client = createLockClient(grpcAddress);
  const isRefused = async () => {
    try {
      await client.acquire("dark", { ttl: ms(1_000), waitTimeout: ms(0) });
      return false;
    } catch (error) {
      return error instanceof CallFailed && error.reason === "LOCK_AUTHORITY_UNAVAILABLE";
    }
  };
  await until(isRefused, { what: "nobody to decide", timeoutMs: LONGEST_MS });
}
