import { isLoopback } from "../config/safety.ts";
import type { Config } from "../config.ts";

/** What stands behind a server and who gets in, for the first look at a log. Fields and banner say the same. */
export interface Serving {
  readonly host: string;
  readonly tls: "off" | "tls" | "mtls";
  /** How many API keys there are. */
  readonly keys: number | "off";
  readonly sql: "sqlite" | "postgres";
  /** Where SQLite keeps its file. */
  readonly dataDir?: string;
  readonly redis: "off" | "single" | "sentinel" | "cluster";
}

export function servingFacts({ server, database, dataDir, redis }: Config, keys: number | undefined): Serving {
  const { host, tls } = server;
  return {
    host,
    tls: tls === undefined ? "off" : tls.clientCaFile === undefined ? "tls" : "mtls",
    keys: keys ?? "off",
    sql: database.kind,
    ...(database.kind === "sqlite" && { dataDir }),
    redis: redis?.target.mode ?? "off",
  };
}

export function servingInWords({ tls, keys, sql, dataDir, redis }: Serving): string {
  const where = dataDir === undefined ? sql : `${sql} in ${dataDir}`;
  return `TLS ${tls === "off" ? "off" : `on${tls === "mtls" ? " with client certificates" : ""}`}, API keys ${keys}, SQL ${where}, Redis ${redis}`;
}

/** What strangers may do, where the configuration lets them. Undefined where it does not. */
export function openToStrangers({ server }: Config): string | undefined {
  if (isLoopback(server.host)) return undefined;
  const lacking = [
    ...(server.tls === undefined ? ["TLS"] : []),
    ...(server.apiKeysFile === undefined && server.tls?.clientCaFile === undefined ? ["API keys"] : []),
  ];
  if (lacking.length === 0) return undefined;
  return `HOLDFAST_INSECURE: ${server.host} is open to the network without ${lacking.join(" and ")}; whoever reaches these ports ${
    lacking.includes("API keys") ? "may read and change everything" : "can listen in"
  }`;
}
