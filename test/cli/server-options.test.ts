import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { serverOf } from "../../src/cli/client/server-options.ts";
import { scratchDirectory } from "../support/scratch.ts";

const scratch = scratchDirectory("server-options");
afterAll(() => scratch.remove());
mkdirSync(scratch.path, { recursive: true });

function file(name: string, content: string): string {
  const path = join(scratch.path, name);
  writeFileSync(path, content);
  return path;
}

describe("the server that a command calls", () => {
  it("is the one of the settings in force, from the environment or the file", async () => {
    const yaml = file("holdfast.yaml", "server:\n  host: 127.0.0.2\n  grpc_port: 7555\n");
    expect(await serverOf({}, { HOLDFAST_CONFIG: yaml })).toEqual({ address: "127.0.0.2:7555" });
    const environment = { HOLDFAST_CONFIG: yaml, HOLDFAST_GRPC_PORT: "7666", HOLDFAST_API_KEY: "key" };
    expect(await serverOf({}, environment)).toEqual({ address: "127.0.0.2:7666", apiKey: "key" });
    expect(await serverOf({ address: "[::1]:1", "api-key": "other", tls: true }, environment)).toEqual({
      address: "[::1]:1",
      apiKey: "other",
      tls: "system",
    });
  });

  it("is not looked for in settings when an address is given, however wrong they are", async () => {
    const environment = { HOLDFAST_GRPC_PORT: "many" };
    expect(await serverOf({ address: "audit.example:7420" }, environment)).toEqual({ address: "audit.example:7420" });
    await expect(serverOf({}, environment)).rejects.toThrow("HOLDFAST_GRPC_PORT");
  });

  it("has to be told where the settings do not tell enough", async () => {
    await expect(serverOf({}, { HOLDFAST_GRPC_PORT: "0" })).rejects.toThrow(/say where with --address/);
    const pem = file("any.pem", "");
    const environment = { HOLDFAST_TLS_CERT: pem, HOLDFAST_TLS_KEY: pem };
    await expect(serverOf({}, environment)).rejects.toThrow(/speaks TLS: give --tls-ca FILE, or --tls/);
    expect(await serverOf({ "tls-ca": "ca.pem" }, environment)).toMatchObject({ tls: "ca.pem" });
    await expect(serverOf({ tls: true, "tls-ca": "ca.pem" }, {})).rejects.toThrow(/give one of them/);
  });

  it.each([
    ["http://127.0.0.1:7421", /is a?.*URL; wanted HOST:PORT of its gRPC port, such as 127\.0\.0\.1:7420$/],
    ["https://audit.example", /a URL; .* and --tls or --tls-ca FILE$/],
    ["localhost", /"localhost", wanted HOST:PORT/],
    ["localhost:0", /wanted HOST:PORT/],
    ["localhost:70000", /wanted HOST:PORT/],
    ["::1:7420", /wanted HOST:PORT/],
    ["", /wanted HOST:PORT/],
  ])("is not %j", (address, why) => expect(serverOf({ address }, {})).rejects.toThrow(why));
});
