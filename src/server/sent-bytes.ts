import type { Message } from "@bufbuild/protobuf";
import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";
import { Malformed, requestDecoder } from "./codec.ts";
import type { Method } from "./method.ts";

const BINARY = /^application\/(?:proto|grpc-web(?:\+proto)?)\s*(?:;|$)/i;
const WEB = /^application\/grpc-web/i;
/** What stands before a message of gRPC-Web: a byte of flags, and how long it is. */
const ENVELOPE_BYTES = 5;
const COMPRESSED = 1;

export interface SentBytesOptions {
  readonly header: Headers;
  readonly compressions: readonly Compression[];
  readonly mostBytes: number;
}

/**
 * The bytes of a unary request in binary, kept while connect-node reads them: it makes a message of them in one way alone, which
 * tells less than they do.
 */
export class SentBytes {
  readonly #chunks: Uint8Array[] = [];
  readonly #options: SentBytesOptions;

  constructor(options: SentBytesOptions) {
    this.#options = options;
  }

  static areWanted(header: Headers): boolean {
    return BINARY.test(header.get("content-type") ?? "");
  }

  async *keep(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of body) {
      this.#chunks.push(chunk);
      yield chunk;
    }
  }

  /** Of a request that connect-node has read without complaint. */
  async message(): Promise<Buffer> {
    const { header, compressions, mostBytes } = this.#options;
    const body = Buffer.concat(this.#chunks);
    const isWeb = WEB.test(header.get("content-type") ?? "");
    const bytes = isWeb ? body.subarray(ENVELOPE_BYTES, ENVELOPE_BYTES + body.readUInt32BE(1)) : body;
    const isCompressed = !isWeb || ((body[0] ?? 0) & COMPRESSED) !== 0;
    const name = header.get(isWeb ? "grpc-encoding" : "content-encoding");
    const compression = isCompressed ? compressions.find((each) => each.name === name) : undefined;
    return compression === undefined ? bytes : Buffer.from(await compression.decompress(bytes, mostBytes));
  }
}

/** Of the request that is being served, where its RPC wants them. */
export const sentBytesKey = createContextKey<SentBytes | undefined>(undefined, { description: "sent bytes" });

/** A request as its RPC wants it decoded: as on the gRPC plane, where it came in binary. */
export async function askedIn({ desc, decoder }: Method, request: Message, context: HandlerContext): Promise<Message> {
  const sent = context.values.get(sentBytesKey);
  if (decoder === undefined || sent === undefined) return request;
  const asked = requestDecoder(desc.input, decoder)(await sent.message());
  if (asked instanceof Malformed) throw asked.failure;
  return asked;
}
