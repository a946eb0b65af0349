import { Failure } from "./failure.ts";

/** Whether the same may succeed later: SQL is away, or undid it for the sake of others. */
export function isTransient(error: unknown): boolean {
  return error instanceof Failure && (error.kind === "unavailable" || error.reason === "SQL_CONFLICT");
}
