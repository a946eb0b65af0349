import { connect, type Socket } from "node:net";

/**
 * A load generator for unary gRPC that costs little itself: it writes HTTP/2 frames by hand from prepared bodies and reads only
 * frame headers of what comes back, so that one core of it can saturate one core of a server. A reply without a message (an
 * error) counts as failed.
 */
export interface LoadOptions {
  readonly port: number;
  /** Such as "/holdfast.v1.CacheService/Get". */
  readonly path: string;
  /** Messages to send, in turn. */
  readonly bodies: readonly Uint8Array[];
  readonly connections: number;
  /** Calls in flight on each connection. */
  readonly streams: number;
  readonly durationMs: number;
}

export interface LoadResult {
  readonly calls: number;
  readonly failed: number;
  readonly seconds: number;
  /** In milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const FRAME = { data: 0, headers: 1, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;
const ACK = 1;
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const WINDOW = 0x3fffffff;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9 + payload.length);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  head.set(payload, 9);
  return head;
}

/** HPACK without tables: each field literal and never indexed, so one block serves every call. */
function headerBlock(path: string): Buffer {
  const fields = [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "localhost"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ];
  const parts = fields.map(([name = "", value = ""]) =>
    Buffer.concat([
      Buffer.from([0x10, name.length]),
      Buffer.from(name),
      Buffer.from([value.length]),
      Buffer.from(value),
    ]),
  );
  return Buffer.concat(parts);
}

function message(body: Uint8Array): Buffer {
  const framed = Buffer.alloc(5 + body.length);
  framed.writeUInt32BE(body.length, 1);
  framed.set(body, 5);
  return framed;
}

export async function load(options: LoadOptions): Promise<LoadResult> {
  const block = headerBlock(options.path);
  const requests = options.bodies.map((body) => {
    const head = frame(FRAME.headers, END_HEADERS, 0, block);
    return { bytes: Buffer.concat([head, frame(FRAME.data, END_STREAM, 0, message(body))]), dataAt: head.length };
  });
  const latencies: number[] = [];
  const counts = { calls: 0, failed: 0 };
  const begun = performance.now();
  const until = begun + options.durationMs;
  await Promise.all(
    Array.from({ length: options.connections }, (_, i) =>
      drive({ ...options, requests, until, latencies, counts, first: i }),
    ),
  );
  const seconds = (performance.now() - begun) / 1000;
  const sorted = Float64Array.from(latencies).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { ...counts, seconds, p50: at(0.5), p99: at(0.99), max: at(1) };
}

interface Drive extends LoadOptions {
  readonly requests: readonly { readonly bytes: Buffer; readonly dataAt: number }[];
  readonly until: number;
  readonly latencies: number[];
  readonly counts: { calls: number; failed: number };
  readonly first: number;
}

function drive(options: Drive): Promise<void> {
  const { requests, until, latencies, counts, streams } = options;
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({ port: options.port, host: "127.0.0.1", noDelay: true });
    const begun = new Map<number, number>();
    const answered = new Set<number>();
    let nextStream = 1;
    let nextRequest = options.first * 7919;
    let received = 0;
    let window = 65_535;
    let rest: Buffer<ArrayBufferLike> = Buffer.alloc(0);
    let settled = false;
    const out: Buffer[] = [];

    function send(): void {
      const now = performance.now();
      if (now >= until) {
        if (begun.size === 0) end();
        return;
      }
      while (begun.size < streams) {
        const request = requests[nextRequest++ % requests.length];
        if (request === undefined) return;
        const { bytes, dataAt } = request;
        const size = bytes.length - dataAt - 9;
        if (size > window) return;
        window -= size;
        const copy = Buffer.from(bytes);
        copy.writeUInt32BE(nextStream, 5);
        copy.writeUInt32BE(nextStream, dataAt + 5);
        begun.set(nextStream, now);
        nextStream += 2;
        out.push(copy);
      }
    }

    function flush(): void {
      if (out.length === 0) return;
      socket.write(out.length === 1 && out[0] !== undefined ? out[0] : Buffer.concat(out));
      out.length = 0;
    }

    function end(): void {
      if (settled) return;
      settled = true;
      socket.destroy();
      resolve();
    }

    function finish(stream: number): void {
      const from = begun.get(stream);
      if (from === undefined) return;
      begun.delete(stream);
      counts.calls++;
      if (!answered.delete(stream)) counts.failed++;
      latencies.push(performance.now() - from);
    }

    function onFrame(type: number, flags: number, stream: number, payload: Buffer): void {
      if (type === FRAME.data) {
        received += payload.length;
        if (payload.length > 0) answered.add(stream);
        if (flags & END_STREAM) finish(stream);
        if (received > WINDOW / 4) {
          const grant = Buffer.alloc(4);
          grant.writeUInt32BE(received);
          received = 0;
          out.push(frame(FRAME.windowUpdate, 0, 0, grant));
        }
      } else if (type === FRAME.headers) {
        if (flags & END_STREAM) finish(stream);
      } else if (type === FRAME.settings) {
        if (!(flags & ACK)) out.push(frame(FRAME.settings, ACK, 0, Buffer.alloc(0)));
      } else if (type === FRAME.ping) {
        if (!(flags & ACK)) out.push(frame(FRAME.ping, ACK, 0, payload));
      } else if (type === FRAME.windowUpdate) {
        if (stream === 0) window += payload.readUInt32BE(0);
      } else if (type === FRAME.goaway) {
        reject(new Error("the server closed the connection"));
      } else if (type === 3) {
        finish(stream);
      }
    }

    socket.on("data", (chunk: Buffer) => {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      while (bytes.length - at >= 9) {
        const length = bytes.readUIntBE(at, 3);
        if (bytes.length - at < 9 + length) break;
        onFrame(
          bytes.readUInt8(at + 3),
          bytes.readUInt8(at + 4),
          bytes.readUInt32BE(at + 5) & 0x7fffffff,
          bytes.subarray(at + 9, at + 9 + length),
        );
        at += 9 + length;
      }
      rest = bytes.subarray(at);
      send();
      flush();
    });
    socket.on("error", reject);
    socket.on("close", () => (settled ? undefined : reject(new Error("the connection was lost"))));
    socket.on("connect", () => {
      const settings = Buffer.alloc(12);
      settings.writeUInt16BE(4, 0);
      settings.writeUInt32BE(WINDOW, 2);
      settings.writeUInt16BE(1, 6);
      settings.writeUInt32BE(0, 8);
      const grant = Buffer.alloc(4);
      grant.writeUInt32BE(WINDOW);
      out.push(PREFACE, frame(FRAME.settings, 0, 0, settings), frame(FRAME.windowUpdate, 0, 0, grant));
      send();
      flush();
    });
  });
}
