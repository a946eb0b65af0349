import { ConnectError } from "@connectrpc/connect";
import type { CallError } from "./errors.ts";

/** The same error for the HTTP plane, where connect-node writes it for Connect and gRPC-Web. */
export function connectError(error: CallError, metadata?: Record<string, string>): ConnectError {
  const code: number = error.code;
  return new ConnectError(
    error.message,
    code,
    metadata,
    error.details.map(({ desc, message }) => ({ desc, value: { ...message } })),
    error.thrown,
  );
}
