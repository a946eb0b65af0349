import { isIP } from "node:net";
import type { Config } from "../config.ts";
import type { Mistake } from "./mistakes.ts";

/** Whether only processes of this machine can reach an address. */
export function isLoopback(host: string): boolean {
  if (isIP(host) === 4) return host.startsWith("127.");
  return host.toLowerCase() === "localhost" || host === "::1" || /^::ffff:127\./i.test(host);
}

/** Combinations that are wrong although each setting of them is right. */
export function contradictions({ server, redis }: Pick<Config, "server" | "redis">, tlsGiven: TlsGiven): Mistake[] {
  const mistakes: Mistake[] = [];
  const say = (where: string, what: string) => mistakes.push({ where, what });
  if (tlsGiven.cert !== tlsGiven.key) {
    const [there, missing] = tlsGiven.cert
      ? ["HOLDFAST_TLS_CERT", "HOLDFAST_TLS_KEY"]
      : ["HOLDFAST_TLS_KEY", "HOLDFAST_TLS_CERT"];
    say(missing, `is not set, wanted the file that belongs to ${there}`);
  }
  if (tlsGiven.clientCa && !tlsGiven.cert && !tlsGiven.key) {
    say("HOLDFAST_TLS_CLIENT_CA", "is set without HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY, wanted all three for mTLS");
  }
  if ((tlsGiven.redisCert || tlsGiven.redisKey) && tlsGiven.redisCert !== tlsGiven.redisKey) {
    say(
      tlsGiven.redisCert ? "REDIS_TLS_KEY" : "REDIS_TLS_CERT",
      "is not set, wanted both REDIS_TLS_CERT and REDIS_TLS_KEY",
    );
  }
  if (redis && redis.tls === undefined && (tlsGiven.redisCa || tlsGiven.redisCert)) {
    say("REDIS_URL", "does not ask for TLS although REDIS_TLS files are set, wanted rediss://");
  }
  if (server.grpcPort !== 0 && server.grpcPort === server.httpPort) {
    say("HOLDFAST_HTTP_PORT", `is ${server.httpPort}, the same as HOLDFAST_GRPC_PORT, wanted another port`);
  }
  if (!isLoopback(server.host) && !server.insecure && !(tlsGiven.cert && tlsGiven.key && server.apiKeysFile)) {
    const lacking = [
      ...(tlsGiven.cert && tlsGiven.key ? [] : ["HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY"]),
      ...(server.apiKeysFile ? [] : ["HOLDFAST_API_KEYS_FILE (make one with `holdfast keys create`)"]),
    ];
    say(
      "HOLDFAST_HOST",
      `is ${JSON.stringify(server.host)}, which other machines can reach: that takes TLS and API keys. Set ${lacking.join(" and ")}; or HOLDFAST_HOST=127.0.0.1; or HOLDFAST_INSECURE=true where the network itself keeps strangers out`,
    );
  }
  return mistakes;
}

/** Which TLS files are named, whether or not they could be read: a wrong path is not also a missing one. */
export interface TlsGiven {
  readonly cert: boolean;
  readonly key: boolean;
  readonly clientCa: boolean;
  readonly redisCa: boolean;
  readonly redisCert: boolean;
  readonly redisKey: boolean;
}
