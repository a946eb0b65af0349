import type { LockPolicies, LockPolicy } from "../lock/policies.ts";
import { choice, type Kind, Refusal } from "./kind.ts";
import type { Reader, Setting } from "./reader.ts";
import { duration, hour, second } from "./units.ts";
import { maskUrl, type RedisAddress, redisUrl } from "./url.ts";

export const LOCK_AUTHORITIES = ["sqlite", "redis", "redlock", "postgres"] as const;
export type LockAuthorityName = (typeof LOCK_AUTHORITIES)[number];

export interface LockChoices {
  readonly policies: LockPolicies;
  readonly authority: LockAuthorityName;
  /** Who decides while Redis is away. */
  readonly fallback: "postgres" | undefined;
  /** The masters of redlock; none otherwise. */
  readonly masters: readonly RedisAddress[];
}

/** What else was configured. */
export interface Surroundings {
  readonly hasRedis: boolean;
  readonly hasPostgres: boolean;
}

const LEAST_MASTERS = 3;

// The contract's limits. A bare number is refused: taken for the wrong unit, a lock would be lost or held for days.
const ttlKind = duration({ bare: "refused", min: 100, max: 24 * hour });
const mastersKind = redlockUrls();

function redlockUrls(): Kind<readonly RedisAddress[]> {
  const one = redisUrl();
  const all = (written: readonly unknown[]): readonly RedisAddress[] | Refusal => {
    const masters = written.flatMap((url) => {
      const address = typeof url === "string" ? one.fromEnvironment(url.trim()) : new Refusal();
      return address instanceof Refusal || address.target.mode !== "single" ? [] : [address];
    });
    const different = new Set(masters.map(({ target }) => JSON.stringify(target.nodes)));
    const isRight = masters.length === written.length && different.size === masters.length;
    return isRight && masters.length >= LEAST_MASTERS && masters.length % 2 === 1 ? masters : new Refusal();
  };
  return {
    wanted: `an odd number, at least ${LEAST_MASTERS}, of different redis://host:port or rediss://host:port`,
    fromEnvironment: (written) => all(written.split(",")),
    fromFile: (value) => (Array.isArray(value) ? all(value) : new Refusal()),
    show: (masters) => masters.map(({ written }) => maskUrl(written)),
    mask: maskUrl,
  };
}

const AUTHORITY: Setting<LockAuthorityName> = {
  env: "LOCK_AUTHORITY",
  path: ["lock", "authority"],
  kind: choice(LOCK_AUTHORITIES),
};
const FALLBACK: Setting<"postgres" | "none"> = {
  env: "LOCK_FALLBACK",
  path: ["lock", "fallback"],
  kind: choice(["postgres", "none"]),
};
const MASTERS: Setting<readonly RedisAddress[]> = {
  env: "LOCK_REDLOCK_URLS",
  path: ["lock", "redlock_urls"],
  kind: mastersKind,
};

export function readLocks(reader: Reader, around: Surroundings): LockChoices {
  const usual = around.hasRedis ? "redis" : around.hasPostgres ? "postgres" : "sqlite";
  const authority = reader.required(AUTHORITY, usual, "default");
  const fallback = reader.required(FALLBACK, "none", "default");
  const masters = reader.optional(MASTERS);
  refuseContradictions(reader, around, { authority, fallback, hasMasters: reader.has(MASTERS) });
  return {
    policies: readPolicies(reader),
    authority,
    fallback: fallback === "none" ? undefined : fallback,
    masters: authority === "redlock" ? (masters ?? []) : [],
  };
}

interface Choice {
  readonly authority: LockAuthorityName;
  readonly fallback: "postgres" | "none";
  readonly hasMasters: boolean;
}

function refuseContradictions(
  reader: Reader,
  { hasRedis, hasPostgres }: Surroundings,
  { authority, fallback, hasMasters }: Choice,
): void {
  const say = (setting: string, what: string) => reader.refuse(setting, what);
  if (authority === "sqlite" && hasPostgres) {
    say("LOCK_AUTHORITY", "is sqlite, but SQL is Postgres, wanted postgres, or redis or redlock");
  }
  if (authority === "postgres" && !hasPostgres) {
    say(
      "LOCK_AUTHORITY",
      "is postgres, but DATABASE_URL is not set, wanted DATABASE_URL as well, or another authority",
    );
  }
  if (authority === "redis" && !hasRedis) {
    say("LOCK_AUTHORITY", "is redis, but there is no Redis, wanted REDIS_URL as well, or another authority");
  }
  if (authority === "redlock" && !hasMasters) {
    say("LOCK_REDLOCK_URLS", `is not set, wanted ${mastersKind.wanted}, since LOCK_AUTHORITY is redlock`);
  }
  if (authority !== "redlock" && hasMasters) {
    say("LOCK_REDLOCK_URLS", `is set, but LOCK_AUTHORITY is ${authority}, wanted LOCK_AUTHORITY=redlock as well`);
  }
  if (fallback === "postgres" && !(authority === "redis" && hasPostgres)) {
    say("LOCK_FALLBACK", "is postgres, wanted that only where LOCK_AUTHORITY is redis and DATABASE_URL is set");
  }
}

/** What a policy leaves out it takes from `lock.default`. */
function readPolicies(reader: Reader): LockPolicies {
  const ttl = { env: "LOCK_TTL", path: ["lock", "default", "ttl"], kind: ttlKind };
  const fallback: LockPolicy = { ttlMs: reader.required(ttl, 30 * second) };
  const group = ["lock", "names"];
  const names = reader.names(group).map((name): [string, LockPolicy] => {
    const fault = nameFault(name);
    if (fault !== undefined) reader.refuseInFile([...group, name], fault);
    const path = [...group, name, "ttl"];
    return [name, { ttlMs: reader.required({ path, kind: ttlKind }, fallback.ttlMs, "lock.default") }];
  });
  return { fallback, names: Object.fromEntries(names) };
}

function nameFault(name: string): string | undefined {
  const bytes = Buffer.byteLength(name.replace(/\*$/, ""));
  return bytes > 1024
    ? "is not the name of a lock, wanted at most 1024 bytes, with * at the end for a start"
    : undefined;
}
