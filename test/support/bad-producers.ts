import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  AuditAppendSchema,
  AuditService,
  AuditServiceIngestRequestSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import type { AppendInit } from "./audit-client.ts";
import { frame } from "./bad-frames.ts";

/** A producer by hand on HTTP/2, on a connection of its own, which reads nothing. */
export interface DeafProducer extends Disposable {
  /** The bytes that the server or the network has taken. */
  readonly taken: number;
  /** Sends another batch of the same records. */
  send(): void;
  /** Sends so many bytes of another batch, and no more. */
  sendPart(bytes: number): void;
}

/** Opens an Ingest and resolves when the server has seen the connection. `records` are those of every batch. */
export async function openDeafProducer(
  port: number,
  producer: string,
  records: readonly AppendInit[],
): Promise<DeafProducer> {
  const session = connect(`http://127.0.0.1:${port}`, { maxSessionMemory: 1_000, settings: { initialWindowSize: 0 } });
  session.on("error", () => undefined);
  await once(session, "remoteSettings");
  const stream = openIngest(session);
  stream.write(frame(toBinary(AuditServiceIngestRequestSchema, opening(producer))));
  const body = recordsOf(records);
  let batch = 0;
  return {
    get taken() {
      return session.socket.bytesWritten;
    },
    send() {
      const [head, rest] = batchOf(++batch, body);
      stream.write(head);
      stream.write(rest);
    },
    sendPart(bytes) {
      stream.write(Buffer.concat(batchOf(++batch, body)).subarray(0, bytes));
    },
    [Symbol.dispose]: () => session.destroy(),
  };
}

function openIngest(session: ClientHttp2Session) {
  const stream = session.request({
    ":method": "POST",
    ":path": `/${AuditService.typeName}/Ingest`,
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => undefined);
  return stream;
}

function opening(producer: string) {
  return create(AuditServiceIngestRequestSchema, { message: { case: "open", value: { producer } } });
}

/** Written once, however often it is sent. */
function recordsOf(records: readonly AppendInit[]): Uint8Array {
  const writer = new BinaryWriter();
  for (const record of records) {
    writer.tag(2, WireType.LengthDelimited).bytes(toBinary(AuditAppendSchema, create(AuditAppendSchema, record)));
  }
  return writer.finish();
}

function batchOf(batch: number, records: Uint8Array): [head: Buffer, records: Uint8Array] {
  const number = new BinaryWriter().tag(1, WireType.Varint).uint64(batch).finish();
  const head = new BinaryWriter()
    .tag(2, WireType.LengthDelimited)
    .uint32(number.length + records.length)
    .finish();
  const start = Buffer.alloc(5);
  start.writeUInt32BE(head.length + number.length + records.length, 1);
  return [Buffer.concat([start, head, number]), records];
}
