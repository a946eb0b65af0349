import { createHash } from "node:crypto";
import { realpathSync, statSync } from "node:fs";
import { hostname } from "node:os";
import type { Redis } from "./redis.ts";

/** A server that shares this Redis. */
export interface Instance {
  readonly id: string;
  /** Whether its SQL is a file of its own, which no other instance sees. */
  readonly localSql: boolean;
  /** Which truth it holds: equal for instances that share it, and for one data directory over restarts. */
  readonly truth: string;
  /** When it started, in milliseconds since 1970. */
  readonly started: number;
}

export interface Instances {
  /** Those seen at the last heartbeat, this one included, sorted by id. Only this one while Redis is away. */
  readonly current: readonly Instance[];
  /**
   * How many there were, this one included, when Redis last answered. One that a Redis does not know which has just come back, and
   * may have lost everything, is counted for three heartbeats more.
   */
  readonly lastSeen: number;
  /** Called when an instance came or went. Returns the removal. */
  onChange(listener: () => void): () => void;
  /** Takes this instance off the list at once, rather than when its heartbeat has run out. */
  close(): Promise<void>;
}

export interface InstancesOptions {
  readonly redis: Pick<Redis, "command" | "getBuffers" | "onConnected">;
  readonly self: Instance;
  /** How often to say that this instance lives. Default 5 s; the others forget it after three times that. */
  readonly heartbeatMs?: number;
}

/** Names of the instances. Their heartbeats are keys of their own, since members of a set do not expire one by one. */
const index = "holdfast:instances";
const heartbeatKey = (id: string) => `holdfast:instance:${id}`;

/** Registers this instance in Redis and watches the others. Never fails: while Redis is away it tries again. */
export function createInstances({ redis, self, heartbeatMs = 5000 }: InstancesOptions): Instances {
  const listeners = new Set<() => void>();
  let current: readonly Instance[] = [self];
  /** At which heartbeat that reached Redis each of the others was last seen. */
  const others = new Map<string, number>();
  let heartbeats = 0;
  let countedAt = Number.NEGATIVE_INFINITY;
  let missed = 0;
  let beating: Promise<void> | undefined;
  let closed = false;

  function become(next: readonly Instance[]): void {
    const changed = next.map(({ id }) => id).join() !== current.map(({ id }) => id).join();
    current = next;
    if (changed) for (const listener of listeners) listener();
  }

  function count(seen: readonly Instance[]): void {
    // Whoever connects again and again beats more often than time goes by.
    if (performance.now() - countedAt >= heartbeatMs / 2) {
      heartbeats++;
      countedAt = performance.now();
    }
    for (const { id } of seen) others.set(id, heartbeats);
    for (const [id, last] of others) if (heartbeats - last >= 3) others.delete(id);
  }

  async function beat(): Promise<void> {
    try {
      await redis.command("set", heartbeatKey(self.id), JSON.stringify(self), "PX", heartbeatMs * 3);
      await redis.command("sadd", index, self.id);
      const ids = strings(await redis.command("smembers", index));
      const found = await redis.getBuffers(ids.map(heartbeatKey));
      const gone = ids.filter((_, at) => !found[at]);
      // One that is only late puts its name back with its next heartbeat.
      if (gone.length > 0) await redis.command("srem", index, ...gone);
      missed = 0;
      const seen = found.flatMap((heartbeat) => read(heartbeat) ?? []).filter(({ id }) => id !== self.id);
      count(seen);
      become([self, ...seen].sort((a, b) => (a.id < b.id ? -1 : 1)));
    } catch {
      // Redis has forgotten everyone else by now, or will have when it is back.
      if (++missed >= 3) become([self]);
    }
  }

  function beatOnce(): void {
    if (closed) return;
    beating ??= beat().finally(() => {
      beating = undefined;
    });
  }

  const timer = setInterval(beatOnce, heartbeatMs);
  timer.unref();
  const forget = redis.onConnected(beatOnce);
  beatOnce();

  return {
    get current() {
      return current;
    },
    get lastSeen() {
      return others.size + 1;
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async close() {
      closed = true;
      clearInterval(timer);
      forget();
      listeners.clear();
      await beating;
      try {
        await redis.command("srem", index, self.id);
        await redis.command("del", heartbeatKey(self.id));
      } catch {
        // Without Redis the heartbeat runs out by itself.
      }
    },
  };
}

/**
 * Names the truth in a data directory. A process that was killed and started again on the same directory must not take its own
 * last heartbeat for a stranger's.
 */
export function localTruth(dataDir: string): string {
  const { dev, ino } = statSync(dataDir);
  return createHash("sha256")
    .update([hostname(), realpathSync(dataDir), dev, ino].join("\0"))
    .digest("hex")
    .slice(0, 16);
}

/** Those that hold another truth than this one, although only one can be true. */
export function strangers(instances: readonly Instance[], self: Instance): readonly Instance[] {
  return self.localSql ? instances.filter(({ id, truth }) => id !== self.id && truth !== self.truth) : [];
}

function strings(reply: unknown): string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}

function read(heartbeat: Buffer | null): Instance | undefined {
  if (heartbeat === null) return undefined;
  try {
    const found: unknown = JSON.parse(heartbeat.toString());
    if (typeof found !== "object" || found === null || !("id" in found) || typeof found.id !== "string")
      return undefined;
    const { id } = found;
    const localSql = "localSql" in found && found.localSql === true;
    const truth = "truth" in found ? String(found.truth) : "";
    const started = "started" in found ? Number(found.started) : 0;
    return { id, localSql, truth, started };
  } catch {
    return undefined;
  }
}
