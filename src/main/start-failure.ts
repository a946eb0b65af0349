import { Failure } from "../infra/failure.ts";
import { type Log, redact } from "../infra/log.ts";
import { ListenError } from "../server/listen-error.ts";

/** Which setting to look at, where the failure itself does not say. */
const settings = new Map([
  ["DATA_DIRECTORY_IN_USE", "HOLDFAST_DATA_DIR"],
  ["DATA_DIRECTORY_UNAVAILABLE", "HOLDFAST_DATA_DIR"],
  ["SQL_UNAVAILABLE", "DATABASE_URL"],
  ["AUDIT_SIGNING_KEY_INVALID", "AUDIT_SIGNING_KEY"],
]);

/** Says why the server does not start: in one plain line on stderr, as mistakes of the configuration are said, and in the log. */
export function tellStartFailure(error: unknown, log: Log): void {
  const why = whyNotStarted(error);
  process.stderr.write(`holdfast: ${redact(why)}\n`);
  const expected = error instanceof Failure || (error instanceof Error && error.name === "KeysFileError");
  // Where a stack leads to is of use for a defect only.
  log.error(expected ? {} : { err: error }, `cannot start: ${why}`);
  if (expected) log.debug({ err: error }, "cannot start");
}

export function whyNotStarted(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error instanceof Failure)) return error.message || error.name;
  const setting = error instanceof ListenError ? listenSetting(error) : settings.get(error.reason);
  return `${operatorText(error)}${setting === undefined ? "" : `; see ${setting}`}`;
}

function listenSetting({ plane, message }: ListenError): string {
  const port = plane === "grpc" ? "HOLDFAST_GRPC_PORT" : "HOLDFAST_HTTP_PORT";
  return /EADDRNOTAVAIL|ENOTFOUND/.test(message) ? "HOLDFAST_HOST" : port;
}

/** What a database said, and where it is, stands in the cause: no caller may know it, but who runs the server should. */
export function operatorText({ reason, message, cause }: Failure): string {
  return reason === "SQL_UNAVAILABLE" && cause instanceof Error ? cause.message : message;
}
