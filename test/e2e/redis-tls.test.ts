import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createRedis, parseRedisUrl, type Redis, type RedisTls } from "../../src/infra/redis.ts";
import { freePort } from "../support/free-port.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const directory = scratchDirectory("redis-tls");
const path = (name: string) => join(directory.path, name);
const read = (name: string) => readFileSync(path(name), "utf8");

let server: RedisServer;
let tlsPort: number;

beforeAll(async () => {
  makeAuthority("ca");
  makeAuthority("stranger");
  makeCertificate("server", "ca", "subjectAltName=DNS:redis.test,IP:127.0.0.1");
  makeCertificate("client", "ca", "extendedKeyUsage=clientAuth");
  tlsPort = await freePort();
  const files = ["--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key")];
  const authority = ["--tls-ca-cert-file", path("ca.crt"), "--tls-auth-clients", "yes"];
  server = await startRedis({
    args: ["--tls-port", String(tlsPort), ...files, ...authority, "--requirepass", "secret"],
  });
});
afterAll(async () => {
  await server.stop();
  directory.remove();
});

function connect(tls: RedisTls): Redis {
  const options = parseRedisUrl(`rediss://:secret@127.0.0.1:${tlsPort}`);
  if (typeof options === "string") throw new Error(options);
  return createRedis({ mode: "single", nodes: [], commandTimeoutMs: 2_000, connectTimeoutMs: 2_000, ...options, tls });
}

describe("Redis over TLS", () => {
  it("is reached with a certificate that its authority signed", async () => {
    const redis = connect({ ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") });
    expect(await redis.command("set", "k", "v")).toBe("OK");
    const heard: string[] = [];
    const subscriber = redis.createSubscriber({ onMessage: (_, message) => heard.push(message) });
    subscriber.subscribe("c");
    await until(() => subscriber.connected, { what: "the subscription" });
    await redis.publish("c", "over TLS");
    await until(() => heard.length > 0, { what: "the message" });
    await subscriber.close();
    await redis.close();
  });

  it("checks the server's name when one is given", async () => {
    const own = { ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") };
    const right = connect({ ...own, servername: "redis.test" });
    expect(await right.command("ping")).toBe("PONG");
    await right.close();
    const wrong = connect({ ...own, servername: "other.test" });
    await expect(wrong.command("ping")).rejects.toBeInstanceOf(UnavailableError);
    await wrong.close();
  });

  it.each([
    [
      "does not trust the server",
      () => ({ ca: read("stranger.crt"), cert: read("client.crt"), key: read("client.key") }),
    ],
    ["shows no certificate", () => ({ ca: read("ca.crt") })],
  ])("is unavailable to a client that %s", async (_, tls) => {
    const redis = connect(tls());
    await expect(redis.command("ping")).rejects.toBeInstanceOf(UnavailableError);
    expect(redis.connected).toBe(false);
    await redis.close();
  });
});

function openssl(...args: readonly string[]): void {
  execFileSync("openssl", args, { cwd: directory.path, stdio: "pipe" });
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

function makeAuthority(name: string): void {
  openssl(
    "req",
    "-x509",
    ...NEW_KEY,
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.crt`,
  );
}

function makeCertificate(name: string, authority: string, extension: string): void {
  openssl("req", ...NEW_KEY, "-subj", `/CN=${name}`, "-keyout", `${name}.key`, "-out", `${name}.csr`);
  writeFileSync(path(`${name}.ext`), `${extension}\n`);
  const signer = ["-CA", `${authority}.crt`, "-CAkey", `${authority}.key`, "-CAcreateserial"];
  openssl(
    "x509",
    "-req",
    "-in",
    `${name}.csr`,
    ...signer,
    "-days",
    "2",
    "-extfile",
    `${name}.ext`,
    "-out",
    `${name}.crt`,
  );
}
