import { writeFileSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import pg from "pg";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { createCacheClient } from "../support/cache-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createRegisterHistory, type RegisterAccount } from "../support/load-history.ts";
import { type LoadProcess, startLoad } from "../support/load-process.ts";
import { isRegisterReport, type RegisterJob, type RegisterReport, stateOf } from "../support/load-register.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

/** How long a call may wait for Redis, as these tests configure it. */
export const COMMAND_TIMEOUT_MS = 250;
/** A busy machine may hold up a process for long; a call that had no bound would wait for longer than this, see FREEZE_MS. */
export const SLACK_MS = 3_000;
/** Longer than the timeout and the slack together: who waits for a frozen Redis to come back is found out. */
export const FREEZE_MS = 4_000;

export const SETTINGS = {
  REDIS_COMMAND_TIMEOUT: `${COMMAND_TIMEOUT_MS}ms`,
  REDIS_CONNECT_TIMEOUT: "500ms",
  CIRCUIT_BREAKER_RESET_TIMEOUT: "200",
  HOLDFAST_LOG_LEVEL: "warn",
};

/** Instances beside a Redis of their own, which keeps every write it acknowledged when it is killed. */
export interface Setup extends AsyncDisposable {
  readonly redis: RedisServer;
  readonly instances: readonly HoldfastProcess[];
  /** Changes that Redis has not heard of yet, as SQL remembers them. */
  unhealed(): Promise<number>;
}

export async function startSetup(topology: "cluster" | "single", env: Record<string, string> = {}): Promise<Setup> {
  const parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] }));
  const shared = topology === "cluster" ? { DATABASE_URL: await freshDatabase() } : {};
  // The level must be one at which a start is told of.
  const settings = { ...SETTINGS, HOLDFAST_LOG_LEVEL: "info", REDIS_URL: redis.url, ...shared, ...env };
  const starting = topology === "cluster" ? ["one", "two"] : ["one"];
  const instances = await Promise.all(starting.map(async () => parts.use(await startHoldfast(settings))));
  return {
    redis,
    instances,
    unhealed: () => countUnhealed(instances),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** The path of a configuration in which the namespaces `durable` and those that begin with `truth` are durable. */
export function durableConfig(parts: AsyncDisposableStack): string {
  const directory = parts.adopt(scratchDirectory("config"), (it) => it.remove());
  const file = join(directory.path, "holdfast.yaml");
  writeFileSync(file, 'cache:\n  namespaces:\n    durable: {durable: true}\n    "truth*": {durable: true}\n');
  return file;
}

const UNHEALED = `SELECT (SELECT COUNT(*) FROM cache_entry WHERE unhealed <> 0)
  + (SELECT COUNT(*) FROM cache_mark WHERE unhealed <> 0) AS count`;

export async function countUnhealed(instances: readonly HoldfastProcess[]): Promise<number> {
  const [first] = instances;
  const { DATABASE_URL: url, HOLDFAST_DATA_DIR: directory } = first?.env ?? {};
  if (url !== undefined) {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return Number((await client.query<{ count: string }>(UNHEALED)).rows[0]?.count);
    } finally {
      await client.end();
    }
  }
  const file = new Sqlite(`${directory}/holdfast.db`, { readonly: true });
  try {
    return Number(file.prepare<[], { count: number }>(UNHEALED).get()?.count);
  } finally {
    file.close();
  }
}

/** Until Redis answers again on every instance and has been told of everything that changed without it. */
export async function healed({ instances, unhealed }: Pick<Setup, "instances" | "unhealed">): Promise<void> {
  for (const { httpUrl } of instances) {
    const closed = async () => (await metric(httpUrl, 'holdfast_redis_breaker_state{state="closed"}')) === 1;
    await until(closed, { what: "the breaker to close", timeoutMs: 30_000 });
    const heard = async () =>
      (await (await fetch(`${httpUrl}/health/redis`)).status) === 200 && (await servedByRedis(instances));
    await until(heard, { what: "Redis to be used again", timeoutMs: 30_000 });
  }
  await until(async () => (await unhealed()) === 0, { what: "everything to be healed", timeoutMs: 30_000 });
}

async function servedByRedis(instances: readonly HoldfastProcess[]): Promise<boolean> {
  for (const { grpcAddress } of instances) {
    using client = createCacheClient(grpcAddress);
    const { servedBy, degraded } = await client.put("probe", "probe", "probe");
    if (servedBy !== "redis" || degraded) return false;
  }
  return true;
}

/** The value of one sample of the metrics page; undefined when it is not there. */
export async function metric(httpUrl: string, sample: string): Promise<number | undefined> {
  const page = await (await fetch(`${httpUrl}/metrics`)).text();
  const line = page.split("\n").find((one) => one.startsWith(`${sample} `));
  return line === undefined ? undefined : Number(line.slice(sample.length + 1));
}

export function startRegister(job: RegisterJob): Promise<LoadProcess<RegisterReport>> {
  return startLoad("load-register.ts", job, isRegisterReport);
}

/** Two client processes for each instance; each key has one writer, so each process has keys of its own, new ones each round. */
export async function startRegisters(
  instances: readonly HoldfastProcess[],
  { round = 0, ...job }: Omit<RegisterJob, "address" | "prefix"> & { readonly round?: number },
): Promise<LoadProcess<RegisterReport>[]> {
  const started = instances.flatMap(({ grpcAddress }, at) =>
    [0, 1].map((n) =>
      startRegister({ ...job, address: grpcAddress, prefix: `r${round}i${at}p${n}-`, seed: job.seed + at * 10 + n }),
    ),
  );
  const loads = await Promise.all(started);
  await until(() => loads.every(({ told }) => told.includes("under load")), { what: "the load to begin" });
  return loads;
}

/** Reads every register through every instance, and past its memory straight from the shared layer. */
export async function readBack(
  instances: readonly HoldfastProcess[],
  namespace: string,
  reports: readonly RegisterReport[],
): Promise<RegisterAccount> {
  const history = createRegisterHistory(new Map(reports.flatMap(({ account }) => [...account.acknowledged])));
  const keys = [...history.account.acknowledged.keys()];
  for (const { grpcAddress } of instances) {
    using client = createCacheClient(grpcAddress);
    for (const bypassL1 of [false, true]) {
      const { reply } = await client.call(CacheService.method.getMany, { namespace, keys, bypassL1 });
      reply.results.forEach(({ entry }, i) => {
        const key = keys[i] ?? "";
        history.saw(`${grpcAddress}${bypassL1 ? " past L1" : ""}`, key, stateOf(entry), history.floor(key));
      });
    }
  }
  return history.account;
}

/** What happened in a run, for whoever reads its output. */
export function tell(run: string, reports: readonly RegisterReport[], after: RegisterAccount): string {
  const sum = (of: (report: RegisterReport) => number) => reports.reduce((total, report) => total + of(report), 0);
  const slowest = reports.reduce((one, other) => (one.slowestMs > other.slowestMs ? one : other));
  return [
    `${run}: ${sum((r) => r.calls)} calls by ${reports.length} processes, ${sum((r) => r.degraded)} degraded,`,
    `${sum((r) => r.failed)} failed, slowest ${slowest.slowest} ${Math.round(slowest.slowestMs)} ms;`,
    `${after.acknowledged.size} registers, ${sum((r) => r.account.reads)} reads meanwhile:`,
    `${sum((r) => r.account.violations)} went back, ${sum((r) => r.account.holes)} saw nothing;`,
    `${after.reads} reads after: ${after.violations} went back, ${after.holes} saw nothing`,
  ].join(" ");
}
