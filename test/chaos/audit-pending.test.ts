import { expect, it } from "vitest";
import { AuditDecision, AuditService, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AuditClient, createAuditClient } from "../support/audit-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { atScale } from "../support/scale.ts";
import { until } from "../support/until.ts";

/*
 * Promises: very many records that wait for a review cost the server no memory and its callers no patience: pages, filters, decisions
 * and reviews answer within the deadline of an impatient caller, from the first page to the last.
 */

const PENDING = atScale(1_000_000, 250_000);
const SUBJECTS = PENDING / 4;
const DEADLINE_MS = 2_000;
const MOST_MIB = 350;
const { method } = AuditService;

/** Streams records that want a review, of which four are about each subject. */
async function fill(client: AuditClient): Promise<void> {
  let acked = 0;
  const stream = await client.ingest("filler", {
    onAck({ appended }) {
      acked += appended;
    },
  });
  for (let sent = 0; sent < PENDING; sent += 1_000) {
    await until(() => sent - acked < stream.opened.windowRecords - 1_000, {
      what: "the window to open",
      intervalMs: 1,
    });
    stream.send(
      Array.from({ length: 1_000 }, (_, at) => {
        const number = sent + at;
        const resource = { type: "memory", id: String(number % SUBJECTS) };
        const entry = { actor: "filler", action: "memory.update", resource, status: AuditStatus.PENDING };
        return { sequence: BigInt(number + 1), entry };
      }),
    );
  }
  await until(() => acked === PENDING, { what: "the last ack", timeoutMs: 120_000 });
  stream.finish();
  expect(await stream.ended).toBeUndefined();
}

it("very many pending records are paged through, decided on and asked about", { timeout: 400_000 }, async () => {
  await using server = await startHoldfast();
  using patient = createAuditClient(server.grpcAddress, { deadlineMs: 120_000 });
  await fill(patient);
  // Whatever is put off until nobody is waiting is done now.
  await patient.call(method.listPending, { pageSize: 1 });
  using client = createAuditClient(server.grpcAddress, { deadlineMs: DEADLINE_MS });

  const seen = new Set<string>();
  let pageToken = "";
  for (let page = 0; page < 5; page++) {
    const { reply } = await client.call(method.listPending, { pageSize: 1_000, pageToken });
    expect(reply.records.length).toBeGreaterThan(0);
    for (const { id } of reply.records) seen.add(id);
    pageToken = reply.nextPageToken;
  }
  expect(seen.has("filler/1")).toBe(true);

  // Of four records about a subject the newest decides.
  const subject = { resource: { type: "memory", id: "4711" } };
  const isApproved = async () =>
    (await client.call(method.isApproved, { target: { case: "subject", value: subject } })).reply;
  const newest = `filler/${3 * SUBJECTS + 4_712}`;
  expect(await isApproved()).toMatchObject({ approved: false, status: AuditStatus.PENDING, recordId: newest });
  const review = { id: newest, decision: AuditDecision.APPROVE, reviewer: "somebody" };
  expect((await client.review(review)).applied).toBe(true);
  expect(await isApproved()).toMatchObject({ approved: true, recordId: newest });
  const nobody = { resource: { type: "memory", id: "nobody" } };
  const { reply: unknown } = await client.call(method.isApproved, { target: { case: "subject", value: nobody } });
  expect(unknown).toMatchObject({ approved: false, recordId: "" });

  const filter = { resourceType: "memory", resourceId: "4711" };
  const { reply: rest } = await client.call(method.listPending, { filter });
  expect(rest.records.map(({ id }) => id)).toEqual([0, 1, 2].map((turn) => `filler/${turn * SUBJECTS + 4_712}`));
  expect(residentMiB(server.pid)).toBeLessThan(MOST_MIB);
});
