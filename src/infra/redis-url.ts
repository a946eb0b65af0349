import type { RedisNode, RedisOptions } from "./redis.ts";

const MODES: Readonly<
  Record<string, { readonly mode: RedisOptions["mode"]; readonly tls: boolean; readonly port: number }>
> = {
  redis: { mode: "single", tls: false, port: 6379 },
  rediss: { mode: "single", tls: true, port: 6379 },
  "redis-cluster": { mode: "cluster", tls: false, port: 6379 },
  "rediss-cluster": { mode: "cluster", tls: true, port: 6379 },
  "redis-sentinel": { mode: "sentinel", tls: false, port: 26379 },
  "rediss-sentinel": { mode: "sentinel", tls: true, port: 26379 },
};

/**
 * Reads one of
 *
 *     redis://[user:password@]host[:port][/db]
 *     redis-cluster://[user:password@]host[:port],host[:port]...
 *     redis-sentinel://[user:password@]host[:port],host[:port].../name[/db][?sentinelPassword=...]
 *
 * with `rediss` in the place of `redis` for TLS. Several hosts after `redis://` mean a cluster. Returns what is wrong as a
 * sentence that repeats nothing of it: a mistyped password may stand anywhere.
 */
export function parseRedisUrl(url: string): Partial<RedisOptions> | string {
  const parts = /^([a-z-]+):\/\/(?:([^/?#]*)@)?([^/?#@]*)(\/[^?#]*)?(?:\?([^#]*))?$/.exec(url.trim());
  const scheme = MODES[parts?.[1] ?? ""];
  if (parts === null || scheme === undefined) {
    return "expected redis://, rediss://, redis-cluster:// or redis-sentinel:// and then host:port";
  }
  const [, , userinfo, hosts = "", path = "", query = ""] = parts;
  const nodes: RedisNode[] = [];
  for (const text of hosts.split(",")) {
    const node = parseNode(text, scheme.port);
    if (typeof node === "string") return node;
    nodes.push(node);
  }
  const mode = scheme.mode === "single" && nodes.length > 1 ? "cluster" : scheme.mode;
  const login = parseUserinfo(userinfo);
  if (typeof login === "string") return login;

  const segments = path.split("/").filter((segment) => segment !== "");
  const sentinelName = mode === "sentinel" ? segments.shift() : undefined;
  if (mode === "sentinel" && !/^[\w.-]+$/.test(sentinelName ?? "")) {
    return "expected the primary's name after the Sentinels: /name";
  }
  const db = parseDatabase(segments, mode);
  if (typeof db === "string") return db;
  const sentinelPassword = new URLSearchParams(query).get("sentinelPassword");

  return {
    mode,
    nodes,
    ...login,
    ...(sentinelName === undefined ? {} : { sentinelName }),
    ...(sentinelPassword === null ? {} : { sentinelPassword }),
    ...(db === undefined ? {} : { db }),
    ...(scheme.tls ? { tls: {} } : {}),
  };
}

function parseNode(text: string, defaultPort: number): RedisNode | string {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*))(?::(\d+))?$/.exec(text.trim());
  if (parts === null) return "expected host:port, several of them separated by commas";
  const port = parts[3] === undefined ? defaultPort : Number(parts[3]);
  if (port < 1 || port > 65_535) return "expected a port from 1 to 65535";
  const host = parts[1] ?? parts[2] ?? "";
  if (host === "") return "expected a host name before the port";
  return { host, port };
}

function parseUserinfo(userinfo: string | undefined): { username?: string; password?: string } | string {
  if (userinfo === undefined || userinfo === "") return {};
  const colon = userinfo.indexOf(":");
  try {
    const username = decodeURIComponent(colon < 0 ? userinfo : userinfo.slice(0, colon));
    const password = colon < 0 ? "" : decodeURIComponent(userinfo.slice(colon + 1));
    return { ...(username === "" ? {} : { username }), ...(password === "" ? {} : { password }) };
  } catch {
    return "expected the user and password percent-encoded";
  }
}

function parseDatabase(segments: readonly string[], mode: RedisOptions["mode"]): number | undefined | string {
  const [text] = segments;
  if (text === undefined) return undefined;
  if (segments.length > 1 || !/^\d{1,5}$/.test(text)) return "expected a database number at the end";
  if (mode === "cluster" && text !== "0") return "expected no database number: a cluster has only 0";
  return Number(text);
}
