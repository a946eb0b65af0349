import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import { createArchiver } from "../../src/audit/queue/archiver.ts";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { createRedisLease } from "../../src/audit/queue/redis-lease.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { createRedis, parseRedisUrl } from "../../src/infra/redis.ts";

/* An archiver in a process of its own: for tests that freeze and kill it. Arguments: Redis, Postgres, stream, name, lease. */

const [redisUrl = "", databaseUrl = "", streamKey = "", name = "", ttlMs] = process.argv.slice(2);
const address = parseRedisUrl(redisUrl);
if (typeof address === "string") throw new Error(address);
const redis = createRedis({
  ...{ mode: "single", nodes: [], commandTimeoutMs: 5_000, connectTimeoutMs: 5_000 },
  ...address,
});
const database = openPostgres({ url: databaseUrl, poolSize: 2, statementTimeoutMs: 2_000, connectTimeoutMs: 20_000 });
const log = createLog({ level: "info" });
const growth = createGrowth(createLocalBackplane());
createArchiver({
  backlog: createRedisBacklog({ redis, streamKey, consumer: name }),
  lease: createRedisLease({ redis, streamKey, holder: name, ttlMs: Number(ttlMs) }),
  archive: createSqlArchive({ database, growth, clock: systemClock, log }),
  clock: systemClock,
  log,
});
log.info({}, "ready");
