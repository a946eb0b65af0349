import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type Cache, createCache } from "../../src/cache/cache.ts";
import type { RequestedExpiry } from "../../src/cache/expiry.ts";
import type { Namespace } from "../../src/cache/namespace.ts";
import type { NamespacePolicy } from "../../src/cache/policy.ts";
import type { CacheStore } from "../../src/cache/store.ts";
import { createVersions, type Versions } from "../../src/cache/version.ts";
import type { Backplane } from "../../src/infra/backplane.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { Database } from "../../src/infra/database.ts";
import { createFences } from "../../src/infra/fences.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { createLayers } from "../../src/main/cache-layers.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { POLICY, silent } from "./instance.ts";

export interface EmbeddedOptions {
  /** Of every namespace. */
  readonly policy?: Partial<NamespacePolicy>;
  /** That of another instance, to share it. Default: one of its own. */
  readonly database?: Database;
  /** The newest tokens that were granted, by lock. */
  readonly granted?: ReadonlyMap<string, number>;
  readonly clock?: MovedClock;
  readonly backplane?: Backplane;
  readonly random?: () => number;
  readonly l1Bytes?: number;
  /** Something between the cache and the layer below it. */
  readonly between?: (store: CacheStore) => CacheStore;
}

/** The cache over SQLite, on a clock that the test moves. Taken apart when the test ends. */
export interface Embedded {
  readonly cache: Cache;
  readonly namespace: Namespace;
  readonly clock: MovedClock;
  readonly versions: Versions;
  readonly database: Database;
  /** The layer below the cache: what is changed here, the cache hears nothing of. */
  readonly store: CacheStore;
  put(key: string, data: string | Uint8Array, ttlMs?: number): Promise<void>;
}

export async function startEmbedded(options: EmbeddedOptions = {}): Promise<Embedded> {
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const { clock = movedClock(), backplane = createLocalBackplane(), between = (store) => store } = options;
  const policy = { ...POLICY, maxBytes: 4 * 1024 * 1024, ...options.policy };
  const versions = createVersions(clock);
  const database = options.database ?? (await openScratch(parts));
  const { granted = new Map<string, number>() } = options;
  const fences = createFences({ database, lastTokenOf: async (lock) => granted.get(lock) ?? 0, clock });
  const layers = parts.adopt(
    await createLayers({
      database,
      redis: undefined,
      announcer: undefined,
      policyFor: () => policy,
      versions,
      fences,
      clock,
      log: silent,
    }),
    (it) => it.close(),
  );
  const stores = new WeakMap<Namespace, CacheStore>();
  const cache = parts.adopt(
    createCache({
      storeOf(namespace) {
        const store = stores.get(namespace) ?? between(layers.storeOf(namespace));
        stores.set(namespace, store);
        return store;
      },
      policyFor: () => policy,
      backplane,
      versions,
      fences,
      l1: { maxBytes: options.l1Bytes ?? 10_000_000, maxItems: undefined },
      clock,
      random: options.random ?? (() => 0),
      log: silent,
    }),
    (it) => it.close(),
  );
  const namespace = cache.namespaces.get("test");
  return {
    cache,
    namespace,
    clock,
    versions,
    database,
    store: layers.storeOf(namespace),
    async put(key, data, ttlMs) {
      const expiry: RequestedExpiry = ttlMs === undefined ? "never" : { ttlMs };
      const order = { key, value: { data, contentType: "" }, expiry, tags: [], ifAbsent: false, leaseToken: "" };
      const [answer] = await cache.set(namespace, [order]);
      if (answer?.outcome !== "stored") throw new Error(`not stored: ${answer?.outcome}`);
    },
  };
}

async function openScratch(parts: AsyncDisposableStack): Promise<Database> {
  const directory = parts.adopt(scratchDirectory("embedded"), (it) => it.remove());
  const database = parts.adopt(openSqlite({ path: join(directory.path, "cache.db") }), (it) => it.close());
  await migrate(database, migrations);
  return database;
}
