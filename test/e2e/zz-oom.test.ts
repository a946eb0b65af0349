import { it } from "vitest";
import { createBadCaller } from "../support/bad-caller.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
it("oom", async () => {
  await using server = await startHoldfast();
  using caller = createBadCaller(server.grpcAddress);
  const body = Buffer.alloc(16_000_000);
  for (let at = 0; at < body.length; at += 2) body[at] = 0x12;
  const items = Buffer.alloc(16_000_000); for (let at = 0; at < items.length; at += 2) items[at] = 0x12;
  for (const [rpc, b] of [["CacheService/SetMany", items], ["AuditService/Append", body]] as const) {
    for (let i = 0; i < 3; i++) {
    const t = performance.now();
    const e = await caller.send(`/holdfast.v1.${rpc}`, b, { deadlineMs: 60000 });
    console.log("OOM", rpc, e.code, e.message.slice(0, 100), Math.round(performance.now() - t), server.exited(), server.exited() ? "" : residentMiB(server.pid));
    }
  }
  const many = await Promise.all(Array.from({ length: 6 }, () => caller.send(`/holdfast.v1.AuditService/Append`, body, { deadlineMs: 60000 })));
  console.log("OOM", many.map((e) => e.code), server.exited(), server.exited() ? server.output().slice(-800) : residentMiB(server.pid));
});
