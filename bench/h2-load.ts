import { connect, type Socket } from "node:net";
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FIRST_WINDOW,
  FRAME,
  frame,
  frameReader,
  HEAD,
  headerBlock,
  MESSAGE_HEAD,
  message,
  opening,
  WINDOW,
  windowUpdate,
} from "./h2-frames.ts";

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
  /** Changes a message, which begins at `at` of these bytes, before it is sent, so that no two calls of a connection are alike. */
  readonly patch?: (bytes: Buffer, at: number, connection: number, call: number) => void;
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
      drive({ ...options, requests, until, latencies, counts, connection: i }),
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
  readonly connection: number;
}

function drive(options: Drive): Promise<void> {
  const { requests, until, latencies, counts, streams, connection, patch } = options;
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({ port: options.port, host: "127.0.0.1", noDelay: true });
    const begun = new Map<number, number>();
    const answered = new Set<number>();
    let nextStream = 1;
    let nextRequest = connection * 7919;
    let call = 0;
    let received = 0;
    let window = FIRST_WINDOW;
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
        const size = bytes.length - dataAt - HEAD;
        if (size > window) return;
        window -= size;
        const copy = Buffer.from(bytes);
        copy.writeUInt32BE(nextStream, 5);
        copy.writeUInt32BE(nextStream, dataAt + 5);
        patch?.(copy, dataAt + HEAD + MESSAGE_HEAD, connection, call++);
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
          out.push(windowUpdate(received));
          received = 0;
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
      } else if (type === FRAME.resetStream) {
        finish(stream);
      }
    }

    const read = frameReader(onFrame);
    socket.on("data", (chunk: Buffer) => {
      read(chunk);
      send();
      flush();
    });
    socket.on("error", reject);
    socket.on("close", () => (settled ? undefined : reject(new Error("the connection was lost"))));
    socket.on("connect", () => {
      out.push(...opening());
      send();
      flush();
    });
  });
}
