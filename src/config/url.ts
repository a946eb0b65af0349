import type { RedisOptions } from "../infra/redis.ts";
import { parseRedisUrl } from "../infra/redis-url.ts";
import { type Kind, Refusal, textual } from "./kind.ts";

/** What REDIS_URL means, beside what was written. */
export interface RedisAddress {
  readonly written: string;
  readonly target: RedisTarget;
  readonly tls: boolean;
}

/** Where Redis is and how to log in; timeouts and certificates have settings of their own. */
export type RedisTarget = Omit<RedisOptions, "tls" | "commandTimeoutMs" | "connectTimeoutMs">;

function parseRedis(written: string): RedisAddress | Refusal {
  const [first = "", ...others] = written.split(/,(?=\s*rediss?:\/\/)/).map((part) => part.trim());
  const [, scheme] = /^(rediss?:\/\/)/.exec(first) ?? [];
  // A list may repeat scheme and login before each host, as long as they are the same: one cluster has one login.
  const hosts = others.map((other) => (scheme === undefined ? other : hostOf(other, scheme, first)));
  if (hosts.includes(undefined)) return new Refusal("one scheme and one login for all hosts of the list");
  const [, head = first, path = ""] = /^([^/]*\/\/[^/?#]*)(.*)$/.exec(first) ?? [];
  const result = parseRedisUrl([head, ...hosts].join(",") + path);
  // What it got stands behind what it expected, and may be a piece of a password.
  if (typeof result === "string") return new Refusal(result.replace(/^expected /, "").replace(/, got .*$/s, ""));
  const { mode, nodes, tls, ...rest } = result;
  if (mode === undefined || nodes === undefined) return new Refusal();
  return { written, tls: tls !== undefined, target: { ...rest, mode, nodes } };
}

function hostOf(other: string, scheme: string, first: string): string | undefined {
  const login = /^[^@/]*@/.exec(first.slice(scheme.length))?.[0] ?? "";
  if (!other.startsWith(scheme)) return undefined;
  const rest = other.slice(scheme.length);
  const host = login !== "" && rest.startsWith(login) ? rest.slice(login.length) : rest;
  return /^[^@/?#]+$/.test(host) ? host : undefined;
}

function parsePostgres(written: string): string | Refusal {
  if (!/^postgres(ql)?:\/\//i.test(written)) return new Refusal();
  // With a socket directory nothing stands where the host would: postgres://user@/name?host=/run/postgresql.
  return URL.canParse(written) || URL.canParse(written.replace("@/", "@localhost/")) ? written : new Refusal();
}

const shape = /^([a-z-]+):\/\/(?:([^/?#]*)@)?([^@/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i;
const harmlessParameters = /^(host|port|user|dbname|sslmode|application_name|connect_timeout)=/;

/**
 * The address without what must stay secret. Of the login not even the user's name is shown: with an unescaped ":" it may be the
 * first half of a password. Of what is not clearly an address nothing is shown: an unescaped "/" in a password would
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
  if (!/^((\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?(,|$))*$/i.test(hosts) || hosts.endsWith(",")) return undefined;
  if (!/^[\w.-]*(\/\d*)?$/.test(path ?? "") || query?.includes("@")) return undefined;
  const start = `${scheme}://${login === undefined ? "" : "***@"}${hosts}`;
  return `${start}${path === undefined ? "" : `/${path}`}${query === undefined ? "" : `?${maskQuery(query)}`}`;
}

function maskQuery(query: string): string {
  return query
    .split("&")
    .map((pair) => (harmlessParameters.test(pair) ? pair : pair.replace(/^([a-z_]*=)?.*$/is, "$1***")))
    .join("&");
}

export function redisUrl(): Kind<RedisAddress> {
  return textual({
    wanted:
      "redis://host:port, rediss:// for TLS, several hosts separated by commas or redis-cluster:// for Redis Cluster, or redis-sentinel://host:port,host:port/name",
    parse: parseRedis,
    show: ({ written }) => maskUrl(written),
    mask: maskUrl,
  });
}

export function postgresUrl(): Kind<string> {
  return textual({
    wanted: "postgres://user:password@host:port/database",
    parse: parsePostgres,
    show: maskUrl,
    mask: maskUrl,
  });
}
