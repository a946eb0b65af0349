import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { startHoldfast } from "../support/holdfast-process.ts";
import { createLockClient, inMs, ms } from "../support/lock-client.ts";
import { plantBug } from "../support/planted-bug.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";

it("a lock that a stream keeps is given back when its client vanishes without a word", async () => {
  // A copy that asks after a second whether the other end is there, and not after a minute.
  using impatient = plantBug([
    {
      file: "src/server/grpc.ts",
      text: '"grpc.keepalive_time_ms": 60_000',
      instead: '"grpc.keepalive_time_ms": 1_000',
    },
    {
      file: "src/server/grpc.ts",
      text: '"grpc.keepalive_timeout_ms": 20_000',
      instead: '"grpc.keepalive_timeout_ms": 1_000',
    },
  ]);
  await using server = await startHoldfast({}, impatient.path);
  await using way = await startTcpProxy(Number(server.grpcAddress.split(":")[1]));
  using vanishing = createLockClient(`127.0.0.1:${way.port}`);
  using next = createLockClient(server.grpcAddress);
  // So long a lease does not end by itself.
  const held = vanishing.hold("batch", { ttl: ms(3_600_000) });
  await held.event("acquired");
  way.freeze();
  const { event } = next.hold("batch", { owner: "next" });
  expect((await event("acquired")).lock).toMatchObject({ owner: "next" });
});

it("a lock for batches is leased for as long as the configuration says", async () => {
  const directory = scratchDirectory("batches");
  const file = join(directory.path, "holdfast.yaml");
  writeFileSync(file, 'lock: { authority: sqlite, default: { ttl: 10m }, names: { "batch/*": { ttl: 30m } } }');
  await using server = await startHoldfast({ HOLDFAST_CONFIG: file });
  using client = createLockClient(server.grpcAddress);
  const lasts = async (name: string) => {
    const { validFor } = await client.acquire(name);
    // Less a margin for clocks.
    return Math.round(inMs(validFor) / 60_000);
  };
  expect([await lasts("batch/import"), await lasts("other")]).toEqual([30, 10]);
  const held = client.hold("batch/kept");
  const { lock } = await held.event("acquired");
  const leased = Number(lock?.expireTime?.seconds) - Number(lock?.acquireTime?.seconds);
  expect(leased).toBe(1_800);
  expect((await client.call(LockService.method.get, { name: "batch/kept" })).reply.lock?.renewals).toBe(0n);
  directory.remove();
});
