/** HTTP/2 frames and gRPC messages as bytes, as far as a load generator needs them. */
export const FRAME = {
  data: 0,
  headers: 1,
  resetStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
} as const;
export const END_STREAM = 1;
export const END_HEADERS = 4;
export const ACK = 1;
export const HEAD = 9;
/** What a peer may always send in one frame. */
export const FRAME_BYTES = 16_384;
/** What may be sent before the server has said anything. */
export const FIRST_WINDOW = 65_535;
export const INITIAL_WINDOW_SIZE = 4;
const HEADER_TABLE_SIZE = 1;
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** How much we let the server send: never the limit of what is measured. */
export const WINDOW = 0x3fffffff;

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEAD + payload.length);
  writeHead(bytes, 0, { length: payload.length, type, flags, stream });
  bytes.set(payload, HEAD);
  return bytes;
}

export function writeHead(
  bytes: Buffer,
  at: number,
  { length, type, flags, stream }: Record<"length" | "type" | "flags" | "stream", number>,
): void {
  bytes.writeUIntBE(length, at, 3);
  bytes.writeUInt8(type, at + 3);
  bytes.writeUInt8(flags, at + 4);
  bytes.writeUInt32BE(stream, at + 5);
}

/** What a client begins a connection with. */
export function opening(): Buffer[] {
  const settings = Buffer.alloc(12);
  settings.writeUInt16BE(INITIAL_WINDOW_SIZE, 0);
  settings.writeUInt32BE(WINDOW, 2);
  settings.writeUInt16BE(HEADER_TABLE_SIZE, 6);
  settings.writeUInt32BE(0, 8);
  return [PREFACE, frame(FRAME.settings, 0, 0, settings), windowUpdate(WINDOW)];
}

export function windowUpdate(bytes: number): Buffer {
  const grant = Buffer.alloc(4);
  grant.writeUInt32BE(bytes);
  return frame(FRAME.windowUpdate, 0, 0, grant);
}

/** HPACK without tables: each field literal and never indexed, so one block serves every call. */
export function headerBlock(path: string): Buffer {
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

/** What gRPC puts before a message: whether it is compressed, and its length. */
export const MESSAGE_HEAD = 5;

/** A gRPC message as it goes into DATA frames. */
export function message(body: Uint8Array): Buffer {
  const framed = Buffer.alloc(MESSAGE_HEAD + body.length);
  framed.writeUInt32BE(body.length, 1);
  framed.set(body, MESSAGE_HEAD);
  return framed;
}

export type OnFrame = (type: number, flags: number, stream: number, payload: Buffer) => void;

/** Returns what is to be told of each chunk that a socket reads; it tells of each complete frame. */
export function frameReader(onFrame: OnFrame): (chunk: Buffer) => void {
  let rest: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  return (chunk) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (bytes.length - at >= HEAD) {
      const length = bytes.readUIntBE(at, 3);
      if (bytes.length - at < HEAD + length) break;
      onFrame(
        bytes.readUInt8(at + 3),
        bytes.readUInt8(at + 4),
        bytes.readUInt32BE(at + 5) & 0x7fffffff,
        bytes.subarray(at + HEAD, at + HEAD + length),
      );
      at += HEAD + length;
    }
    rest = bytes.subarray(at);
  };
}
