import { randomBytes } from "node:crypto";
import type { Config } from "../config.ts";
import type { Backplane } from "../infra/backplane.ts";
import type { Frame } from "../infra/backplane-frame.ts";
import type { WireBackplane } from "../infra/backplane-wire.ts";
import type { Breaker } from "../infra/breaker.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { createInstances, type Instance, type Instances, localTruth } from "../infra/instances.ts";
import type { Log } from "../infra/log.ts";
import type { Redis } from "../infra/redis.ts";
import { startRedis } from "./redis.ts";

export interface Coordination {
  readonly redis: { readonly client: Redis; readonly breaker: Breaker; readonly instances: Instances } | undefined;
  readonly backplane: Backplane;
  /** Frames a message that is published inside an atomic step; undefined where there are no other instances. */
  readonly frame: ((topic: string, message: string) => Frame) | undefined;
  readonly self: Instance;
}

export interface CoordinationOptions {
  readonly config: Config;
  readonly log: Log;
  readonly database: Database;
  readonly startTime: number;
  readonly parts: AsyncDisposableStack;
}

/** What this instance shares with others. Waits for none of it: a Redis that is away is found later. */
export async function startCoordination(options: CoordinationOptions): Promise<Coordination> {
  const { config, log, database, parts, startTime } = options;
  const self: Instance = {
    id: config.instanceId,
    localSql: !database.shared,
    truth: database.shared ? "shared" : localTruth(config.dataDir),
    started: startTime,
  };
  // A fixed instance id outlives the process, but what a former life sent must not pass for an echo of this one.
  const life = `${config.instanceId}.${randomBytes(4).toString("hex")}`;
  if (!config.redis) {
    const backplane = parts.adopt(await openBackplane(config, database, life, log), (it) => it.close());
    const frame = "frame" in backplane ? backplane.frame : undefined;
    return { redis: undefined, backplane, frame, self };
  }
  const client = parts.adopt(await startRedis(config.redis, log), (it) => it.close());
  const { createBreaker } = await import("../infra/circuit-breaker.ts");
  const breaker = parts.adopt(
    createBreaker({
      ...config.breaker,
      probe: async () => void (await client.ping()),
      clock: systemClock,
      log: log.child({ component: "breaker" }),
    }),
    (it) => it.close(),
  );
  const { createRedisBackplane } = await import("../infra/backplane-redis.ts");
  const backplane = parts.adopt(createRedisBackplane({ redis: client, instanceId: life, log }), (it) => it.close());
  const instances = parts.adopt(createInstances({ redis: client, self }), (it) => it.close());
  return { redis: { client, breaker, instances }, backplane, frame: backplane.frame, self };
}

/** Without Redis, instances that share a Postgres hear of each other through it; with a SQLite of its own one is alone. */
async function openBackplane(
  config: Config,
  database: Database,
  instanceId: string,
  log: Log,
): Promise<Backplane | WireBackplane> {
  if (config.database.kind === "sqlite") {
    const { createLocalBackplane } = await import("../infra/backplane-local.ts");
    return createLocalBackplane({ log });
  }
  const { url, connectTimeoutMs } = config.database;
  const [{ createPostgresBackplane }, { openPostgresListener }] = await Promise.all([
    import("../infra/backplane-postgres.ts"),
    import("../infra/postgres-listener.ts"),
  ]);
  const openListener = () => openPostgresListener({ url, connectTimeoutMs });
  return createPostgresBackplane({ database, openListener, instanceId, log });
}
