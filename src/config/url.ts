import { z } from "zod";
import type { Kind } from "./kind.ts";
import { parsed, Refusal } from "./kind.ts";

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Where Redis is and how to log in, whichever way it is deployed. */
export interface RedisTarget {
  readonly mode: "single" | "sentinel" | "cluster";
  /** The server; the sentinels; or some masters of the cluster. */
  readonly endpoints: readonly [Endpoint, ...Endpoint[]];
  /** The name of the master that the sentinels watch. Only with sentinels. */
  readonly masterName?: string;
  readonly username?: string;
  readonly password?: string;
  /** Login at the sentinels themselves. Only with sentinels. */
  readonly sentinelUsername?: string;
  readonly sentinelPassword?: string;
  /** The logical database. Always 0 in a cluster. */
  readonly db: number;
  readonly tls: boolean;
}

const shape = /^([a-z-]+):\/\/(?:([^/?#]*)@)?([^@/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i;
const schemes: Readonly<Record<string, { mode: RedisTarget["mode"]; tls: boolean }>> = {
  redis: { mode: "single", tls: false },
  rediss: { mode: "single", tls: true },
  "redis-cluster": { mode: "cluster", tls: false },
  "rediss-cluster": { mode: "cluster", tls: true },
  "redis-sentinel": { mode: "sentinel", tls: false },
  "rediss-sentinel": { mode: "sentinel", tls: true },
};

function endpoint(written: string, defaultPort: number): Endpoint | undefined {
  const [, host, port] = /^(\[[0-9a-f:.]+\]|[^:[\]\s]+)(?::(\d{1,5}))?$/i.exec(written.trim()) ?? [];
  const number = port === undefined ? defaultPort : Number(port);
  if (host === undefined || number < 1 || number > 65535) return undefined;
  return { host: host.replace(/^\[|\]$/g, ""), port: number };
}

function decoded(part: string | undefined): string | undefined {
  return part === undefined || part === "" ? undefined : decodeURIComponent(part);
}

function parseRedis(written: string): RedisTarget | Refusal {
  // A list may repeat the scheme and the login before each host, or give them once.
  const parts = written.split(/,(?=\s*rediss?:\/\/)/).map((part) => shape.exec(part.trim()));
  const [first] = parts;
  const scheme = schemes[first?.[1]?.toLowerCase() ?? ""];
  if (!first || !scheme) return new Refusal();
  const hosts: Endpoint[] = [];
  for (const part of parts) {
    if (!part || part[1] !== first[1]) return new Refusal("one scheme for every host of the list");
    if ((part[2] ?? first[2]) !== first[2]) return new Refusal("one login for every host of the list");
    for (const host of (part[3] ?? "").split(",")) {
      const found = endpoint(host, scheme.mode === "sentinel" ? 26379 : 6379);
      if (!found) return new Refusal("host or host:port, with a port from 1 to 65535");
      hosts.push(found);
    }
  }
  const [head, ...rest] = hosts;
  if (!head) return new Refusal();
  const mode = scheme.mode === "single" && rest.length > 0 ? "cluster" : scheme.mode;
  const path = (first[4] ?? "").split("/").filter((part) => part !== "");
  const masterName = mode === "sentinel" ? path.shift() : undefined;
  if (mode === "sentinel" && masterName === undefined) {
    return new Refusal("the name of the master after the sentinels: redis-sentinel://host:port,host:port/name");
  }
  const [db = "0", ...more] = path;
  if (more.length > 0 || !/^\d{1,4}$/.test(db))
    return new Refusal("a database number, or nothing, after the last slash");
  if (mode === "cluster" && db !== "0") return new Refusal("no database number: Redis Cluster has only database 0");
  const query = new URLSearchParams(first[5] ?? "");
  const sentinelUsername = query.get("sentinel_username");
  const sentinelPassword = query.get("sentinel_password");
  query.delete("sentinel_username");
  query.delete("sentinel_password");
  const [unknown] = query.keys();
  if (unknown !== undefined) return new Refusal("no parameters other than sentinel_username and sentinel_password");
  try {
    const login = first[2] ?? "";
    const colon = login.indexOf(":");
    const username = decoded(colon < 0 ? login : login.slice(0, colon));
    const password = decoded(colon < 0 ? undefined : login.slice(colon + 1));
    return {
      mode,
      endpoints: [head, ...rest],
      ...(masterName !== undefined && { masterName }),
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...(sentinelUsername !== null && { sentinelUsername }),
      ...(sentinelPassword !== null && { sentinelPassword }),
      db: Number(db),
      tls: scheme.tls,
    };
  } catch {
    return new Refusal("a login whose special characters are percent-encoded");
  }
}

function parsePostgres(written: string): string | Refusal {
  if (!/^postgres(ql)?:\/\//i.test(written)) return new Refusal();
  // A socket directory stands where the host would: postgres://user@%2Frun%2Fpostgresql/name or ?host=/run/postgresql.
  return URL.canParse(written) || URL.canParse(written.replace("@/", "@localhost/")) ? written : new Refusal();
}

/**
 * The address without what must stay secret. The name of a user is shown only when a password follows it, as a login without
 * one may well be a token. Of what is not clearly an address nothing is shown: an unescaped "/" in a password would
 * otherwise pass for the start of a path.
 */
export function maskUrl(seen: string): string {
  const parts = seen.split(/,(?=\s*[a-z-]+:\/\/)/i).map(maskOne);
  return parts.includes(undefined) ? `*** (${seen.length} characters)` : parts.join(",");
}

function maskOne(part: string): string | undefined {
  const found = shape.exec(part.trim());
  if (!found) return undefined;
  const [, scheme = "", login, hosts = "", path, query] = found;
  if (hosts !== "" && !hosts.split(",").every((host) => endpoint(host, 1))) return undefined;
  if (!/^[\w.-]*(\/\d*)?$/.test(path ?? "") || query?.includes("@")) return undefined;
  const [, user = ""] = /^([^:]*:)./.exec(login ?? "") ?? [];
  const start = `${scheme}://${login === undefined ? "" : `${user}***@`}${hosts}`;
  return `${start}${path === undefined ? "" : `/${path}`}${query === undefined ? "" : `?${maskQuery(query)}`}`;
}

function maskQuery(query: string): string {
  return query
    .split("&")
    .map((pair) => {
      const [name = ""] = pair.split("=", 1);
      return /^(host|port|user|dbname|sslmode|application_name|connect_timeout|sentinel_username)$/.test(name)
        ? pair
        : `${pair.includes("=") ? name : ""}=***`;
    })
    .join("&");
}

/** REDIS_URL keeps what was written beside what it means: the first is shown (masked), the second is used. */
export interface RedisAddress {
  readonly written: string;
  readonly target: RedisTarget;
}

export function redisUrl(): Kind<RedisAddress> {
  const schema = parsed(z.string(), (written): RedisAddress | Refusal => {
    const target = parseRedis(written);
    return target instanceof Refusal ? target : { written, target };
  });
  return {
    wanted:
      "redis://host:port, rediss:// for TLS, several hosts separated by commas or redis-cluster:// for Redis Cluster, or redis-sentinel://host:port,host:port/name",
    fromEnvironment: schema,
    fromFile: schema,
    show: ({ written }) => maskUrl(written),
    mask: maskUrl,
  };
}

export function postgresUrl(): Kind<string> {
  const schema = parsed(z.string(), parsePostgres);
  return {
    wanted: "postgres://user:password@host:port/database",
    fromEnvironment: schema,
    fromFile: schema,
    show: maskUrl,
    mask: maskUrl,
  };
}
