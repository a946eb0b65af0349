import pg from "pg";
import { Failure, UnavailableError } from "./failure.ts";

// Troubles of the server or its machine, in words an operator can act on. A prefix of two covers a class of codes.
const troubles: readonly (readonly [code: string, words: string])[] = [
  ["57014", "the statement took longer than the statement timeout"],
  ["55P03", "a lock was not available in time"],
  ["53300", "it has too many connections"],
  ["53100", "its disk is full"],
  ["53200", "its memory has run out"],
  ["53", "its resources have run out"],
  ["25006", "it is read-only (a standby, or failing over)"],
  ["25P0", "the transaction was idle for too long"],
  ["57", "it is shutting down or starting"],
  ["08", "the connection failed"],
  ["28", "it refused the login"],
  ["3D000", "there is no such database"],
  ["58", "its system failed"],
  ["F0", "its configuration is wrong"],
  ["XX", "it failed internally"],
];

/** Undone by the server for the sake of another transaction; trying again is what it asks for. */
const conflicts: ReadonlySet<string> = new Set(["40001", "40P01"]);

/** After a deploy elsewhere changed a table, statements prepared before it stop working. */
export function isStalePlan(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === "0A000" && error.message.includes("cached plan");
}

/** Whether nothing was done and the same statements may simply be tried again. Takes what toCallerError gave. */
export function mayRetry(error: unknown): boolean {
  const origin = error instanceof Failure ? error.cause : error;
  return origin instanceof pg.DatabaseError && (conflicts.has(origin.code ?? "") || isStalePlan(origin));
}

/** Whether the connection must not be used again: it is broken, or leads to a server that will not do. */
export function spoilsConnection(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError)) return true;
  const code = error.code ?? "";
  const fatal = error.severity === "FATAL" || error.severity === "PANIC";
  return fatal || code.startsWith("08") || code.startsWith("57P") || code === "25006";
}

/**
 * What pg threw, as the caller shall see it. `target` names the server without user or password: it stands, with what the
 * server said, in the cause, which is for the log. Where a database is, and what it is called, is no caller's business.
 */
export function toCallerError(error: unknown, target: string): unknown {
  if (error instanceof Failure) return error;
  if (!(error instanceof pg.DatabaseError)) return unavailable(target, wordsFor(error), codeOf(error), error);
  const code = error.code ?? "";
  if (conflicts.has(code) || isStalePlan(error)) {
    return new Failure("conflict", "SQL_CONFLICT", `Postgres undid the transaction: ${error.message}`, {
      metadata: { code },
      cause: error,
    });
  }
  const trouble = troubles.find(([prefix]) => code.startsWith(prefix));
  if (trouble === undefined) return error;
  return unavailable(target, trouble[1], code, error);
}

export function closedError(target: string): UnavailableError {
  return unavailable(target, "the connections to it are closed", undefined, undefined);
}

function unavailable(target: string, words: string, code: string | undefined, cause: unknown): UnavailableError {
  const said = cause instanceof Error ? cause.message || cause.name : words;
  return new UnavailableError("SQL_UNAVAILABLE", `Postgres is not usable: ${words}`, {
    ...(code === undefined ? {} : { metadata: { code } }),
    cause: new Error(`Postgres at ${target}: ${said}`, { cause }),
  });
}

// What pg itself or the socket throws has no class of its own, only these texts.
function wordsFor(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  if (message === "Query read timeout") return "it did not answer within the statement timeout";
  if (message.startsWith("timeout exceeded when trying to connect")) return "no connection became free in time";
  if (message.startsWith("Connection terminated due to connection timeout")) return "connecting took too long";
  const code = codeOf(error);
  return code === undefined ? "the connection failed" : `the connection failed (${code})`;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
