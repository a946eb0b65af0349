import { existingFile, flag, integer, list, text } from "./kind.ts";
import { type Reader, setting } from "./reader.ts";
import { duration, hour, KiB, MiB, second, size } from "./units.ts";

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  /** With it, clients must show a certificate that it signed (mTLS). */
  readonly clientCaFile: string | undefined;
}

export interface ServerSettings {
  readonly host: string;
  /** 0: any free port. */
  readonly grpcPort: number;
  /** 0: any free port. */
  readonly httpPort: number;
  readonly tls: TlsFiles | undefined;
  /** Without it every caller may do everything. */
  readonly apiKeysFile: string | undefined;
  readonly insecure: boolean;
  readonly maxMessageBytes: number;
  readonly drainTimeoutMs: number;
  /** Origins of web pages that may call; "*" for any. */
  readonly corsOrigins: readonly string[];
}

const port = integer({ min: 0, max: 65535, what: "a port from 0 to 65535 (0 takes any that is free)" });
const certificate = existingFile("the path of a PEM file that can be read");

export function readServer(reader: Reader) {
  const host = text("the address or name to listen on", /^[A-Za-z0-9.:_-]{1,253}$/);
  const origin = text('origins such as "https://app.example.com", or "*"', /^(\*|https?:\/\/[^/\s,]+)$/);
  const cert = setting("HOLDFAST_TLS_CERT", "server.tls.cert", certificate);
  const key = setting("HOLDFAST_TLS_KEY", "server.tls.key", certificate);
  const clientCa = setting("HOLDFAST_TLS_CLIENT_CA", "server.tls.client_ca", certificate);
  const keysFile = existingFile("the path of a file of API keys; `holdfast keys create --file ...` makes one");
  const certFile = reader.optional(cert);
  const keyFile = reader.optional(key);
  const clientCaFile = reader.optional(clientCa);
  const settings: ServerSettings = {
    host: reader.required(setting("HOLDFAST_HOST", "server.host", host), "127.0.0.1"),
    grpcPort: reader.required(setting("HOLDFAST_GRPC_PORT", "server.grpc_port", port), 7420),
    httpPort: reader.required(setting("HOLDFAST_HTTP_PORT", "server.http_port", port), 7421),
    tls: certFile !== undefined && keyFile !== undefined ? { certFile, keyFile, clientCaFile } : undefined,
    apiKeysFile: reader.optional(setting("HOLDFAST_API_KEYS_FILE", "server.api_keys_file", keysFile)),
    insecure: reader.required(setting("HOLDFAST_INSECURE", "server.insecure", flag()), false),
    maxMessageBytes: reader.required(
      // The default takes the largest value (4 MiB) with room to spare, and a batch of 1,000 values of 16 KiB.
      setting("HOLDFAST_MAX_MESSAGE_BYTES", "server.max_message_bytes", size({ min: 64 * KiB, max: 256 * MiB })),
      17 * MiB,
    ),
    drainTimeoutMs: reader.required(
      setting("HOLDFAST_DRAIN_TIMEOUT", "server.drain_timeout", duration({ bare: "ms", min: 0, max: hour })),
      10 * second,
    ),
    corsOrigins: reader.required(setting("HOLDFAST_CORS_ORIGINS", "server.cors_origins", list(origin)), []),
  };
  return { settings, given: { cert: reader.has(cert), key: reader.has(key), clientCa: reader.has(clientCa) } };
}
