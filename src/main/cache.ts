import type { Config } from "../config.ts";
import { CacheService } from "../gen/holdfast/v1/cache_pb.js";
import type { CacheHealthNumbers } from "../health/health.ts";
import { type Mounted, mount } from "../infra/call.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { Coordination } from "./coordination.ts";

export interface CacheParts extends Pick<Coordination, "redis" | "backplane"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

export interface RunningCache {
  readonly services: readonly Mounted[];
  readonly health: () => CacheHealthNumbers;
}

/** The cache over the layers of this topology. Its RPCs answer UNIMPLEMENTED until its rules are wired here. */
export async function startCache(_parts: CacheParts): Promise<RunningCache> {
  return {
    services: [mount(CacheService, {})],
    health: () => ({ l1HitRate: 0, l2HitRate: 0, fallbackRate: 0, unhealedChanges: 0 }),
  };
}
