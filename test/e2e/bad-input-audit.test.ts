import { create, type DescMethod, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type AuditIngestAck, AuditService } from "../../src/gen/holdfast/v1/audit_pb.js";
import { badAuditValues, goodAuditParts, goodAuditRequests, prepareAudit } from "../support/bad-audit-fields.ts";
import { type BadCaller, complaints, createBadCaller, type Ending } from "../support/bad-caller.ts";
import { createFrameSender, type FrameSender, frame, unframed } from "../support/bad-frames.ts";
import { type BadRow, badRows, leftOut, type RequestFields, rpcName } from "../support/bad-rows.ts";
import { badTopologies } from "../support/bad-topologies.ts";
import { many } from "../support/bad-value.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

const tables = { goodRequests: goodAuditRequests, badValues: badAuditValues, goodParts: goodAuditParts };
const { method, methods } = AuditService;
const goodOf = (rpc: DescMethod): RequestFields => goodAuditRequests[rpcName(rpc)] ?? {};

/** What is wrong with a record of an Ingest is said in the ack of its batch. */
const inRecord = "batch.records[0].";
const rows = badRows(methods, tables);
const isOfRecord = ({ expected }: BadRow) => expected.fields[0]?.startsWith(inRecord) === true;
/** Not of the first message of a stream, but of one that follows. */
const isLater = ({ method: rpc, expected }: BadRow) =>
  rpc.methodKind === "bidi_streaming" && !expected.fields[0]?.startsWith("open.");

const entry = goodAuditParts.AuditEntry;
const batch = (number: number, records: readonly unknown[] = [goodAuditParts.AuditAppend]) => ({
  message: { case: "batch", value: { batch: BigInt(number), records } },
});
const said = (of: string, value: object) => ({ message: { case: of, value } });

it("the table has a request for every RPC, and an entry for every field", () => {
  expect(leftOut(methods, tables)).toEqual([]);
});

describe.each(badTopologies)("the audit log of a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let caller: BadCaller;
  let frames: FrameSender;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    caller = createBadCaller(server.grpcAddress);
    frames = createFrameSender(server.grpcAddress);
    await prepareAudit(call);
  });
  afterAll(async () => {
    caller[Symbol.dispose]();
    frames[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const pathOf = (rpc: DescMethod) => `/${rpc.parent.typeName}/${rpc.name}`;
  const bytesOf = (rpc: DescMethod, request: RequestFields) => toBinary(rpc.input, create(rpc.input, { ...request }));

  function call(rpc: DescMethod, request: RequestFields): Promise<Ending> {
    return caller.send(pathOf(rpc), bytesOf(rpc, request), { stream: rpc.methodKind !== "unary" });
  }

  /** How a stream ends on which these are sent, and what came back on it. */
  async function talk(rpc: DescMethod, requests: readonly RequestFields[]) {
    const body = Buffer.concat(requests.map((request) => frame(bytesOf(rpc, request))));
    const { grpcStatus, reason, fields, reply } = await frames.send(pathOf(rpc), body);
    return { code: status[grpcStatus ?? -1], reason, fields, replies: unframed(reply) };
  }

  async function ingest(requests: readonly RequestFields[]) {
    const { replies, ...ending } = await talk(method.ingest, requests);
    const acks = replies.flatMap((reply): AuditIngestAck[] => {
      const { message } = fromBinary(method.ingest.output, reply);
      return message.case === "ack" ? [message.value] : [];
    });
    return { ...ending, acks };
  }

  it.each(methods.map((rpc) => ({ title: rpcName(rpc), rpc })))("answers $title", async ({ rpc }) => {
    expect(await call(rpc, goodOf(rpc))).toMatchObject({ code: "OK" });
  });

  it.each(rows.filter((row) => !isLater(row)))("refuses $title", async ({ method: rpc, request, expected }) => {
    expect(await call(rpc, request)).toMatchObject(expected);
  });

  it.each(rows.filter((row) => isLater(row) && !isOfRecord(row)))("ends a stream with $title", async (row) => {
    const { code, reason, fields } = row.expected;
    expect(await talk(row.method, [goodOf(row.method), row.request])).toMatchObject({ code, reason, fields });
  });

  it.each(rows.filter(isOfRecord))("refuses, in the ack: $title", async ({ request, expected }) => {
    const { code, reason, fields } = expected;
    const { acks, ...ending } = await ingest([goodOf(method.ingest), request]);
    expect(ending).toMatchObject({ code: "OK" });
    const error = { code, reason, field: fields[0]?.slice(inRecord.length) };
    expect(acks).toMatchObject([
      { batch: 1n, appended: 0, duplicates: 0, durability: 0, refusals: [{ index: 0, error }] },
    ]);
  });

  const { ingest: ingesting, subscribe } = method;
  const open = { ingest: said("open", { producer: "good" }), subscribe: said("open", {}) };
  const outOfTurn: readonly [string, DescMethod, RequestFields[], string][] = [
    ["Ingest, a batch first", ingesting, [batch(1)], "message"],
    ["Ingest, nothing first", ingesting, [{}], "message"],
    ["Ingest, open twice", ingesting, [open.ingest, open.ingest], "message"],
    ["Ingest, nothing later", ingesting, [open.ingest, {}], "message"],
    ["Ingest, a batch twice", ingesting, [open.ingest, batch(1), batch(1)], "batch.batch"],
    ["Ingest, a batch left out", ingesting, [open.ingest, batch(1), batch(3)], "batch.batch"],
    ["Subscribe, an ack first", subscribe, [said("ack", { deliveryIds: ["0.1"] })], "message"],
    ["Subscribe, nothing first", subscribe, [{}], "message"],
    ["Subscribe, open twice", subscribe, [open.subscribe, open.subscribe], "message"],
    ["Subscribe, nothing later", subscribe, [open.subscribe, {}], "message"],
  ];
  it.each(outOfTurn)("ends a stream with what is out of turn: %s", async (_what, rpc, requests, field) => {
    const refused = { code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", fields: [field] };
    expect(await talk(rpc, requests)).toMatchObject(refused);
  });

  it("acknowledges the batches before one that ends the stream", async () => {
    const records = (from: number) => many(10, (i) => ({ sequence: BigInt(from + i), entry }));
    const { acks, ...ending } = await ingest([
      said("open", { producer: "broken-off" }),
      batch(1, records(1)),
      batch(2, records(11)),
      batch(2, records(21)),
    ]);
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT", fields: ["batch.batch"] });
    expect(acks).toMatchObject([
      { batch: 1n, appended: 10 },
      { batch: 2n, appended: 10 },
    ]);
  });

  it("refuses the bad records of a batch by themselves, and keeps the others", async () => {
    const records = many(9, (i) => ({ sequence: BigInt(i + 1), entry: i % 3 === 1 ? { ...entry, actor: "" } : entry }));
    const { acks } = await ingest([said("open", { producer: "mixed" }), batch(1, [...records, {}])]);
    const error = { code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "entry.actor" };
    expect(acks).toMatchObject([
      {
        appended: 6,
        refusals: [
          ...[1, 4, 7].map((index) => ({ index, sequence: BigInt(index + 1), error })),
          { index: 9, sequence: 0n, error: { field: "sequence" } },
        ],
      },
    ]);
    const { reply } = await call(method.reconcile, { producer: "mixed" });
    const { ranges } = fromBinary(method.reconcile.output, reply ?? Buffer.alloc(0));
    const missing = ranges.filter(({ state }) => state === 1).map(({ firstSequence: first }) => first);
    expect(missing).toEqual([2n, 5n, 8n]);
  });

  it("settles nothing by delivery ids that are none, and calls them late", async () => {
    const ids = ["", "0", "0.0", "x.y.z", "zzzzzzzzzzzz.1", "-1.1", "\0", "d".repeat(10_000), "0.1"];
    const { replies, code } = await talk(subscribe, [
      said("open", { group: "late" }),
      said("ack", { deliveryIds: ids }),
      said("nack", { deliveryIds: ids, error: "\0".repeat(5_000) }),
      said("extend", { deliveryIds: ids }),
    ]);
    expect(code).toBe("OK");
    const settled = replies.flatMap((reply) => {
      const { message } = fromBinary(subscribe.output, reply);
      return message.case === "settled" ? [message.value] : [];
    });
    expect(settled).toMatchObject(many(3, () => ({ deliveryIds: [], lateDeliveryIds: ids })));
  });

  it("names every field that is wrong, and at most 16 of them", async () => {
    const bad = { sequence: 0n, entry: { ...entry, actor: "", resource: {}, context: { traceId: "\0" }, status: 3 } };
    const { fields } = await call(method.append, { producer: "p", records: [bad] });
    const within = ["sequence", "entry.actor", "entry.resource.type", "entry.resource.id", "entry.context.trace_id"];
    expect(fields).toEqual([...within, "entry.status"].map((field) => `records[0].${field}`));
    const records = many(1_000, (i) => ({ sequence: BigInt(i + 1) }));
    const ending = await call(method.append, { producer: "p", records });
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT", fields: many(16, (i) => `records[${i}].entry`) });
    expect(ending.message.length).toBeLessThanOrEqual(1_024);
    const filter = { actors: [""], resourceId: "7", statuses: [0], endTime: { nanos: -1 }, attributes: [{}] };
    expect((await call(method.list, { filter, pageSize: -1, pageToken: "x", order: 9 })).fields).toEqual(
      expect.arrayContaining(["filter.actors[0]", "filter.resource_type", "filter.statuses[0]", "page_size", "order"]),
    );
  });

  it("answers or refuses tokens of its own in which the numbers were changed, and nothing worse", async () => {
    const sparse = many(3, (i) => ({ sequence: BigInt(2 * i + 1), entry }));
    await call(method.append, { producer: "sparse", records: sparse });
    const filter = { producers: ["sparse"] };
    const paged: readonly [DescMethod, RequestFields, "nextPageToken" | "resumeToken"][] = [
      [method.list, { filter, pageSize: 1 }, "nextPageToken"],
      [method.reconcile, { producer: "sparse", pageSize: 1 }, "nextPageToken"],
      [method.export, { filter }, "resumeToken"],
      [method.tail, { filter }, "resumeToken"],
    ];
    for (const [rpc, request, name] of paged) {
      const { reply } = await call(rpc, request);
      const answer = JSON.stringify(toJson(rpc.output, fromBinary(rpc.output, reply ?? Buffer.alloc(0))));
      const [, token = ""] = new RegExp(`"${name}":"([^"]+)"`).exec(answer) ?? [];
      const parts = Buffer.from(token, "base64url").toString().split(" ");
      expect(parts.length, `${rpc.name} gave ${answer}`).toBeGreaterThan(1);
      for (const at of parts.keys()) {
        for (const number of ["-1", "0", "", "1e300", "0.5", "x", "9007199254740991", "-9007199254740991"]) {
          const changed = Buffer.from(parts.with(at, number).join(" ")).toString("base64url");
          const field = name === "resumeToken" ? "resumeToken" : "pageToken";
          const { code, message } = await call(rpc, { ...request, [field]: changed });
          expect(code, `${rpc.name}, ${parts.with(at, number)}: ${message}`).toMatch(
            /^(OK|INVALID_ARGUMENT|OUT_OF_RANGE)$/,
          );
        }
      }
    }
  });

  it("serves on, and has nothing to log as an error", async () => {
    expect(await call(method.get, goodOf(method.get))).toMatchObject({ code: "OK" });
    expect(server.exited()).toBeUndefined();
    expect(complaints(server.output())).toEqual([]);
  });
});
