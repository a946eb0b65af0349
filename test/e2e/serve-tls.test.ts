import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { type Certificates, createCertificates } from "../server/certificates.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { holdfast } from "./command.ts";

const scratch = scratchDirectory("serve-tls");
let certificates: Certificates;
let files: Readonly<Record<"cert" | "key" | "ca" | "keys", string>>;
let apiKey = "";

beforeAll(async () => {
  certificates = await createCertificates();
  const write = (name: string, content: string) => {
    const path = join(scratch.path, name);
    writeFileSync(path, content);
    return path;
  };
  const { server, ca } = certificates;
  const keys = join(scratch.path, "keys.yaml");
  files = {
    cert: write("server.pem", server.cert),
    key: write("server.key", server.key),
    ca: write("ca.pem", ca),
    keys,
  };
  const made = await holdfast(["keys", "create", "--name", "ops", "--scopes", "health:*", "--file", keys], {
    cwd: scratch.path,
  });
  [apiKey = ""] = made.stdout.split("\n");
});
afterAll(async () => {
  await certificates[Symbol.asyncDispose]();
  scratch.remove();
});

function clients(
  server: { grpcAddress: string; httpUrl: string },
  nodeOptions: object,
): Client<typeof HealthService>[] {
  const baseUrl = `https://${server.grpcAddress}`;
  const transports: Transport[] = [
    createGrpcTransport({ baseUrl, nodeOptions }),
    createConnectTransport({ baseUrl: server.httpUrl.replace("http:", "https:"), httpVersion: "1.1", nodeOptions }),
  ];
  return transports.map((transport) => createClient(HealthService, transport));
}

describe("a server that other machines can reach", () => {
  it("serves both planes by TLS to those who hold a key, and says so in its banner", async () => {
    await using server = await startHoldfast({
      HOLDFAST_HOST: "0.0.0.0",
      HOLDFAST_TLS_CERT: files.cert,
      HOLDFAST_TLS_KEY: files.key,
      HOLDFAST_API_KEYS_FILE: files.keys,
      HOLDFAST_BANNER: "true",
    });
    for (const client of clients(server, { ca: certificates.ca })) {
      const authorized = await client.report({}, { headers: { authorization: `Bearer ${apiKey}` } });
      expect(authorized.report?.topology).toBe("embedded");
      await expect(client.report({})).rejects.toMatchObject({ code: Code.Unauthenticated });
    }
    await expect(fetch(`${server.httpUrl}/readyz`)).rejects.toThrow();
    expect(server.output()).toContain("HOLDFAST_API_KEY");
    expect(server.output()).toContain("TLS on, API keys 1, ");
    expect(server.output()).not.toContain("open to the network");
    expect(server.output()).toContain(`https://127.0.0.1:${new URL(server.httpUrl).port}`);
  });

  it("asks for a certificate as well where a client CA is set", async () => {
    await using server = await startHoldfast({
      HOLDFAST_HOST: "0.0.0.0",
      HOLDFAST_TLS_CERT: files.cert,
      HOLDFAST_TLS_KEY: files.key,
      HOLDFAST_TLS_CLIENT_CA: files.ca,
      HOLDFAST_API_KEYS_FILE: files.keys,
    });
    const headers = { authorization: `Bearer ${apiKey}` };
    const pair = await certificates.client("importer");
    for (const client of clients(server, { ca: certificates.ca, ...pair })) {
      expect((await client.report({}, { headers })).report?.topology).toBe("embedded");
    }
    for (const client of clients(server, { ca: certificates.ca })) {
      await expect(client.report({}, { headers })).rejects.toBeInstanceOf(ConnectError);
    }
  });

  it.each([
    ["swapped", "key", "cert", "HOLDFAST_TLS_CERT", "holds a private key, no certificate"],
    ["the certificate twice", "cert", "cert", "HOLDFAST_TLS_KEY", "holds a certificate, no private key"],
    ["the key of another", "ca", "key", "HOLDFAST_TLS_KEY", "is not the key of the certificate in"],
    ["of something else", "keys", "key", "HOLDFAST_TLS_CERT", "holds no certificate"],
  ] as const)("names the file and the setting when they are wrong: %s", async (_, cert, key, setting, what) => {
    const env = { HOLDFAST_TLS_CERT: files[cert], HOLDFAST_TLS_KEY: files[key], HOLDFAST_GRPC_PORT: "0" };
    const { code, stderr } = await holdfast([], { cwd: scratch.path, env: { ...env, HOLDFAST_HTTP_PORT: "0" } });
    const file = files[setting === "HOLDFAST_TLS_CERT" ? cert : key];
    expect(code).toBe(1);
    expect(stderr).toContain(`holdfast: ${file} (${setting}) ${what}`);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });
});
