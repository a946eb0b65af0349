import { connect, type Socket } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  AuditDurability,
  type AuditIngestAck,
  AuditServiceIngestRequestSchema,
  type AuditServiceIngestResponse,
  AuditServiceIngestResponseSchema,
} from "../src/gen/holdfast/v1/audit_pb.js";
import { BATCH_RECORDS, type BatchBuffer, createBatchBuffer } from "./audit-batch.ts";
import { FIRST_SEQUENCE } from "./audit-records.ts";
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FIRST_WINDOW,
  FRAME,
  frame,
  frameReader,
  headerBlock,
  INITIAL_WINDOW_SIZE,
  MESSAGE_HEAD,
  message,
  opening,
} from "./h2-frames.ts";

const STREAM = 1;
const PATH = "/holdfast.v1.AuditService/Ingest";

export interface StreamOptions {
  readonly port: number;
  readonly producer: string;
  /** Batches that may be unacknowledged, as far as the server's window goes. */
  readonly inFlight: number;
  /** Asked before each batch. */
  readonly more: () => boolean;
}

export interface StreamResult {
  readonly records: number;
  /** Of each batch, from sending to its ack, in milliseconds. */
  readonly latencies: readonly number[];
  /** Acks of batches that were less safe than configured. */
  readonly degraded: number;
  readonly leastDurability: number;
  /** The most records that were unacknowledged at once. */
  readonly mostUnacked: number;
}

export interface IngestStream {
  /** Sends from now on, and resolves when every record is acknowledged and the server has ended the stream. */
  run(): Promise<StreamResult>;
}

/**
 * A producer on one stream of Ingest that keeps to the contract's window and costs next to nothing itself: no batch is encoded
 * twice (see audit-batch.ts). Resolves when the server has opened the stream.
 */
export function openIngest(options: StreamOptions): Promise<IngestStream> {
  const { port, producer, inFlight, more } = options;
  const opened = Promise.withResolvers<IngestStream>();
  const finished = Promise.withResolvers<StreamResult>();
  // Whoever runs the stream hears of it; before that, `opened` tells.
  finished.promise.catch(() => undefined);
  const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const latencies: number[] = [];
  const flying: { readonly buffer: BatchBuffer; readonly sentAt: number }[] = [];
  const idle: BatchBuffer[] = [];
  const window = { connection: FIRST_WINDOW, stream: FIRST_WINDOW, initial: FIRST_WINDOW };
  const allowed = { records: 0, bytes: 0 };
  let buffers = 0;
  let unackedBytes = 0;
  let waiting: Buffer[] = [];
  let batch = 0;
  let running = false;
  let ending = false;
  let done = false;
  let replies: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  let degraded = 0;
  let leastDurability: number = AuditDurability.ARCHIVED;
  let mostUnacked = 0;

  function fail(error: Error): void {
    done = true;
    opened.reject(error);
    finished.reject(error);
    socket.destroy();
  }

  /** What of the batch the windows of HTTP/2 let through. */
  function sendWaiting(): boolean {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      const size = next.length - 9;
      if (size > window.connection || size > window.stream) return false;
      window.connection -= size;
      window.stream -= size;
      socket.write(next);
      waiting.shift();
    }
    return true;
  }

  function pump(): void {
    if (!running || ending) return;
    socket.cork();
    while (sendWaiting()) {
      if (flying.length >= inFlight || (flying.length + 1) * BATCH_RECORDS > allowed.records) break;
      const buffer = idle.pop() ?? createBatchBuffer(buffers++ * BATCH_RECORDS);
      if (unackedBytes + buffer.recordBytes > allowed.bytes) {
        idle.push(buffer);
        break;
      }
      if (!more()) {
        ending = true;
        socket.write(frame(FRAME.data, END_STREAM, STREAM, Buffer.alloc(0)));
        break;
      }
      buffer.renew(batch + 1, FIRST_SEQUENCE + batch * BATCH_RECORDS);
      batch++;
      unackedBytes += buffer.recordBytes;
      waiting = [...buffer.frames()];
      flying.push({ buffer, sentAt: performance.now() });
      mostUnacked = Math.max(mostUnacked, flying.length * BATCH_RECORDS);
    }
    socket.uncork();
  }

  function onAck(ack: AuditIngestAck): void {
    const first = flying.shift();
    if (first === undefined || ack.appended !== BATCH_RECORDS) {
      const { batch: number, duplicates, refusals } = ack;
      const refused = refusals[0]?.error?.message ?? "none";
      fail(new Error(`ack ${number} is not of what was sent: ${duplicates} duplicates, refused: ${refused}`));
      return;
    }
    latencies.push(performance.now() - first.sentAt);
    if (ack.degraded) degraded++;
    leastDurability = Math.min(leastDurability, ack.durability);
    allowed.records = ack.windowRecords;
    unackedBytes -= first.buffer.recordBytes;
    // It was sent, or it would not be acknowledged: so its bytes may change.
    idle.push(first.buffer);
  }

  function onReply({ message: { case: kind, value } }: AuditServiceIngestResponse): void {
    if (kind === "ack") onAck(value);
    if (kind !== "opened") return;
    allowed.records = value.windowRecords;
    allowed.bytes = Number(value.windowBytes);
    opened.resolve({
      run() {
        running = true;
        pump();
        return finished.promise;
      },
    });
  }

  function onData(payload: Buffer): void {
    replies = replies.length === 0 ? payload : Buffer.concat([replies, payload]);
    while (replies.length >= MESSAGE_HEAD) {
      const end = MESSAGE_HEAD + replies.readUInt32BE(1);
      if (replies.length < end) break;
      onReply(fromBinary(AuditServiceIngestResponseSchema, replies.subarray(MESSAGE_HEAD, end)));
      replies = replies.subarray(end);
    }
  }

  function onEnd(): void {
    if (flying.length > 0 || !ending) {
      fail(new Error("the server ended the stream before it was done"));
      return;
    }
    done = true;
    socket.destroy();
    finished.resolve({ records: batch * BATCH_RECORDS, latencies, degraded, leastDurability, mostUnacked });
  }

  function onSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== INITIAL_WINDOW_SIZE) continue;
      const initial = payload.readUInt32BE(at + 2);
      window.stream += initial - window.initial;
      window.initial = initial;
    }
    socket.write(frame(FRAME.settings, ACK, 0, Buffer.alloc(0)));
  }

  const read = frameReader((type, flags, stream, payload) => {
    if (type === FRAME.data) onData(payload);
    else if (type === FRAME.settings && !(flags & ACK)) onSettings(payload);
    else if (type === FRAME.ping && !(flags & ACK)) socket.write(frame(FRAME.ping, ACK, 0, payload));
    else if (type === FRAME.windowUpdate) window[stream === 0 ? "connection" : "stream"] += payload.readUInt32BE(0);
    else if (type === FRAME.goaway || type === FRAME.resetStream) fail(new Error("the server broke the stream off"));
    if ((type === FRAME.data || type === FRAME.headers) && flags & END_STREAM) onEnd();
  });
  socket.on("data", (chunk: Buffer) => {
    read(chunk);
    if (!done) pump();
  });
  socket.on("error", fail);
  socket.on("close", () => (done ? undefined : fail(new Error("the connection was lost"))));
  socket.on("connect", () => {
    const open = create(AuditServiceIngestRequestSchema, { message: { case: "open", value: { producer } } });
    const body = message(toBinary(AuditServiceIngestRequestSchema, open));
    window.connection -= body.length;
    window.stream -= body.length;
    const headers = frame(FRAME.headers, END_HEADERS, STREAM, headerBlock(PATH));
    socket.write(Buffer.concat([...opening(), headers, frame(FRAME.data, 0, STREAM, body)]));
  });
  return opened.promise;
}
