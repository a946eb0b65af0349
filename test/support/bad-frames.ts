import { type ClientHttp2Session, connect, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from "node:http2";
import { detailsOf } from "./bad-caller.ts";

export interface FrameEnding {
  readonly httpStatus: number;
  /** undefined when the stream was reset without one. */
  readonly grpcStatus: number | undefined;
  readonly message: string;
  readonly reason: string;
  /** The fields that BadRequest blames. */
  readonly fields: readonly string[];
  readonly reply: Buffer;
}

/** An HTTP/2 client that speaks as much or as little gRPC as a test wants. */
export interface FrameSender extends Disposable {
  /** Sends a request of this very body, and resolves when the stream is closed, however that comes. */
  send(path: string, body: Uint8Array, headers?: Readonly<Record<string, string>>): Promise<FrameEnding>;
}

/** A gRPC message in its frame. */
export function frame(message: Uint8Array, flag = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** The messages of whole frames, one after the other. */
export function unframed(frames: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let at = 0; at < frames.length; ) {
    const end = at + 5 + frames.readUInt32BE(at + 1);
    messages.push(frames.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

export function createFrameSender(address: string): FrameSender {
  let session: ClientHttp2Session | undefined;
  const current = () => {
    if (session === undefined || session.destroyed || session.closed) {
      session = connect(`http://${address}`, { maxSessionMemory: 1_000 });
      session.on("error", () => undefined);
    }
    return session;
  };
  return {
    send(path, body, headers = {}) {
      return new Promise((resolve) => {
        const stream = current().request({
          ":method": "POST",
          ":path": path,
          "content-type": "application/grpc",
          te: "trailers",
          ...headers,
        });
        let head: IncomingHttpHeaders & IncomingHttpStatusHeader = {};
        let trailers: IncomingHttpHeaders = {};
        const chunks: Buffer[] = [];
        stream.on("response", (received) => {
          head = received;
        });
        stream.on("trailers", (received) => {
          trailers = received;
        });
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("error", () => undefined);
        stream.on("close", () => {
          const said = { ...head, ...trailers };
          const details = said["grpc-status-details-bin"];
          const { reason, fields } = detailsOf(
            typeof details === "string" ? Buffer.from(details, "base64") : undefined,
          );
          resolve({
            httpStatus: head[":status"] ?? 0,
            grpcStatus: said["grpc-status"] === undefined ? undefined : Number(said["grpc-status"]),
            message: decodeURIComponent(String(said["grpc-message"] ?? "")),
            reason,
            fields,
            reply: Buffer.concat(chunks),
          });
        });
        stream.end(body);
      });
    },
    [Symbol.dispose]: () => session?.destroy(),
  };
}
