import { describe, expect, it } from "vitest";
import { createLog } from "../../src/infra/log.ts";
import { createContactLog } from "../../src/infra/redis-contact.ts";
import { freePort } from "../support/free-port.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { open } from "./redis-clients.ts";

/** A connection that connects by itself, and its log lines. */
function connectTo(url: string) {
  const lines: string[] = [];
  const log = createLog({ level: "info", destination: { write: (line) => lines.push(line) } });
  let attempts = 0;
  const contact = createContactLog(log);
  const redis = open(url, {
    contact: {
      made: contact.made,
      lost(server, error) {
        attempts++;
        contact.lost(server, error);
      },
    },
  });
  redis.connect();
  const said = () => lines.map((line) => JSON.parse(line)).map(({ level, msg }) => `${level}: ${msg}`);
  return { said, raw: () => lines.join(""), attempts: () => attempts };
}

describe("the log of the connection to Redis", () => {
  it("says once that nothing listens, and once that it is there", async () => {
    const port = await freePort();
    const { said, attempts } = connectTo(`redis://localhost:${port}`);
    await until(() => attempts() >= 3, { what: "three attempts" });
    expect(said()).toEqual([
      expect.stringMatching(/^warn: Redis is not available: .*ECONNREFUSED.*; connecting goes on/),
    ]);
    await using _ = await startRedis({ port });
    await until(() => said().at(-1) === "info: connected to Redis again", { what: "the line that it is there" });
  });

  it("says that the password is refused, without the password", async () => {
    await using server = await startRedis({ args: ["--requirepass", "right"] });
    const { said, raw, attempts } = connectTo(`redis://:wr0ng-secret@127.0.0.1:${server.port}`);
    await until(() => attempts() >= 3, { what: "three attempts" });
    expect(said()).toEqual([expect.stringMatching(/^warn: Redis is not available: WRONGPASS/)]);
    expect(raw()).not.toContain("wr0ng-secret");
    expect(raw()).toContain(`"server":"127.0.0.1:${server.port}"`);
  });

  it("says that it was lost, why it does not come back, and that it is back", async () => {
    await using server = await startRedis();
    const { said, attempts } = connectTo(server.url);
    await until(() => said().includes("info: connected to Redis"), { what: "the first connection" });
    await server.kill();
    await until(() => attempts() >= 4, { what: "three attempts after the loss" });
    await server.restart();
    await until(() => said().includes("info: connected to Redis again"), { what: "the second connection" });
    const warnings = said().filter((line) => line.startsWith("warn"));
    expect(new Set(warnings).size).toBe(warnings.length);
    expect(warnings.join("\n")).toContain("ECONNREFUSED");
  });

  it("says that a server which is no cluster cannot be used as one", async () => {
    await using server = await startRedis();
    const { said, attempts } = connectTo(server.url.replace("redis://", "redis-cluster://"));
    await until(() => attempts() >= 2, { what: "two looks at the topology" });
    expect(said()).toContainEqual(expect.stringMatching(/^warn: .*cluster support disabled/));
    expect(said().filter((line) => line.startsWith("warn"))).toHaveLength(1);
  });
});
