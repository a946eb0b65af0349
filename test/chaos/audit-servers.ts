import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import type { FaultKind, PlannedFault } from "../support/audit-faults.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

export interface AuditServersOptions {
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Told of what does not go as usual, such as a start that has to be tried again. */
  readonly log: (line: string) => void;
}

/** Two instances beside a Redis and a Postgres of their own, all of which may be hurt. */
export interface AuditServers extends AsyncDisposable {
  readonly redis: RedisServer;
  readonly postgres: PostgresServer;
  readonly instances: readonly [HoldfastProcess, HoldfastProcess];
  /** The settings that the instances share. */
  readonly env: Readonly<Record<string, string>>;
  /** Lets a fault happen, waits as long as it is to last, and makes good again. */
  suffer(fault: PlannedFault): Promise<void>;
  /** One command to Redis, by a connection of its own. */
  askRedis<T>(ask: (redis: Redis) => Promise<T>): Promise<T>;
}

/** Short patience everywhere, so that a minute has room for many outages; the rest is as users have it. */
const settings = {
  REDIS_CONNECT_TIMEOUT: "500ms",
  CIRCUIT_BREAKER_RESET_TIMEOUT: "500ms",
  AUDIT_RECOVERY_INTERVAL: "2s",
  DATABASE_STATEMENT_TIMEOUT: "3s",
  HOLDFAST_LOG_LEVEL: "info",
};

export async function startAuditServers({ root, env = {}, log }: AuditServersOptions): Promise<AuditServers> {
  await using starting = new AsyncDisposableStack();
  const redisArgs = ["--appendonly", "yes", "--appendfsync", "everysec"];
  const redis = starting.use(await startRedis({ args: redisArgs }));
  const postgres = starting.use(await startPostgres());
  const shared = { ...settings, REDIS_URL: redis.url, DATABASE_URL: await postgres.createDatabase(), ...env };
  const instances = [
    starting.use(await startHoldfast(shared, root)),
    starting.use(await startHoldfast(shared, root)),
  ] as const;
  const parts = starting.move();

  const victimOf = ({ victim }: PlannedFault): HoldfastProcess => instances[victim % 2 === 0 ? 0 : 1];

  async function askRedis<T>(ask: (client: Redis) => Promise<T>): Promise<T> {
    const client = new Redis(redis.url, { lazyConnect: true, retryStrategy: () => null, commandTimeout: 5_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      return await ask(client);
    } finally {
      client.disconnect();
    }
  }

  /** A start needs Postgres, which may be away for longer than a start waits. */
  async function restart(instance: HoldfastProcess): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await instance.restart();
      } catch (error) {
        log(`start ${attempt} of ${instance.grpcAddress} failed: ${String(error).slice(0, 2_000)}`);
        if (attempt === 5) throw error;
      }
    }
  }

  async function frozen(server: { pause(): void; resume(): void }, holdMs: number): Promise<void> {
    server.pause();
    await delay(holdMs);
    server.resume();
  }

  const faults: Record<FaultKind, (fault: PlannedFault) => Promise<void>> = {
    async "Redis killed"({ holdMs }) {
      await redis.kill();
      await delay(holdMs);
      await redis.restart();
    },
    async "Redis restarted empty"({ holdMs }) {
      await redis.kill();
      redis.forget();
      await delay(holdMs);
      await redis.restart();
    },
    "Redis frozen": ({ holdMs }) => frozen(redis, holdMs),
    "Redis flushed": () => askRedis(async (client) => void (await client.flushall())),
    async "Postgres stopped"({ holdMs }) {
      await postgres.shutDown();
      await delay(holdMs);
      await postgres.restart();
    },
    async "Postgres killed"({ holdMs }) {
      await postgres.kill();
      await delay(holdMs);
      await postgres.restart();
    },
    "Postgres frozen": ({ holdMs }) => frozen(postgres, holdMs),
    async "an instance killed"(fault) {
      const instance = victimOf(fault);
      await instance.kill();
      await delay(fault.holdMs);
      await restart(instance);
    },
    async "both instances killed"({ holdMs }) {
      await Promise.all(instances.map((instance) => instance.kill()));
      await delay(holdMs);
      await Promise.all(instances.map(restart));
    },
    "an instance frozen": (fault) => frozen(victimOf(fault), fault.holdMs),
    "an instance stopped": (fault) => restart(victimOf(fault)),
  };

  return {
    redis,
    postgres,
    instances,
    env: shared,
    suffer: (fault) => faults[fault.kind](fault),
    askRedis,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
