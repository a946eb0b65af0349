import { rmSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

async function append(httpUrl: string, count: number): Promise<void> {
  const records = Array.from({ length: count }, () => ({ entry: { actor: "ada", action: "door.open" } }));
  const answer = await fetch(`${httpUrl}/holdfast.v1.AuditService/Append`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ records }),
  });
  expect(await answer.text()).toContain("ARCHIVED");
}

it("warns when it makes a signing key although there are records, whose checkpoints another key signed", async () => {
  const data = scratchDirectory("lost-key").path;
  const key = join(data, "key.pem");
  await using server = await startHoldfast({ HOLDFAST_DATA_DIR: data, AUDIT_SIGNING_KEY: key });
  const warning = /"level":"warn".*earlier checkpoints were signed by another key/;
  expect(server.output()).toMatch(/"level":"info".*made a key to sign audit checkpoints with/);
  expect(server.output()).not.toMatch(warning);
  await append(server.httpUrl, 1);
  await server.restart();
  expect(server.output()).not.toMatch(/made a key/);
  await server.stop();
  rmSync(key);
  await server.restart();
  expect(server.output()).toMatch(warning);
});

it("says at its start what retention is about to drop, and has not dropped it when it serves", async () => {
  const data = scratchDirectory("grace").path;
  {
    await using before = await startHoldfast({ HOLDFAST_DATA_DIR: data });
    await append(before.httpUrl, 5);
  }
  await using server = await startHoldfast({ HOLDFAST_DATA_DIR: data, AUDIT_RETENTION_COUNT: "2" });
  const warning = /in 30 s retention drops up to 3 audit records, for good: 3 beyond AUDIT_RETENTION_COUNT \(2\)/;
  await until(() => warning.test(server.output()), { what: "the warning" });
  expect(server.output()).not.toContain("retention dropped");
});
