import { pino } from "pino";

/** Facts of one log line. `err` is written with its stack and causes. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** Whether debug lines are written; ask before computing what only they need. */
  readonly debugEnabled: boolean;
  /** A log that adds these fields to each line, such as `{ component: "redis" }`. */
  child(fields: LogFields): Log;
}

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

export interface LogOptions {
  /** Lines below this level are not written. */
  readonly level: LogLevel;
  /** Indented, for people at a terminal. Default: one JSON object a line. */
  readonly pretty?: boolean;
  /** Where lines go. Default: stdout. */
  readonly destination?: { write(line: string): void };
}

const secretField = /^(authorization|x-api-key|api_?key|password|passwd|secret|token|cookie|private_?key)$/i;
const mask = "***";

/**
 * Takes secrets out of a text that goes to a log, a health report or an error: API keys, passwords in URLs, and values of
 * fields that are secret by name.
 */
export function redact(text: string): string {
  return text
    .replace(/\bhf_([A-Za-z0-9]+)_[A-Za-z0-9_-]+/g, `hf_$1_${mask}`)
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)([^\s/:@]*):[^\s@/]+@/gi, `$1$2:${mask}@`)
    .replace(/\bBearer\s+(?!hf_)\S+/gi, `Bearer ${mask}`)
    .replace(/\b(password|secret)=[^\s&;]+/gi, `$1=${mask}`);
}

function clean(value: unknown, depth: number): unknown {
  if (typeof value === "string") return redact(value);
  if (typeof value !== "object" || value === null || depth > 5) return value;
  if (value instanceof Error) return describe(value, depth);
  if (Array.isArray(value)) return value.map((item) => clean(item, depth + 1));
  return cleanFields(value, depth);
}

function cleanFields(fields: object, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, inner]) => [
      name,
      secretField.test(name) && inner !== undefined ? mask : clean(inner, depth + 1),
    ]),
  );
}

function describe(error: Error, depth: number): Record<string, unknown> {
  return {
    type: error.name,
    message: redact(error.message),
    stack: error.stack === undefined ? undefined : redact(error.stack),
    ...("code" in error && { code: error.code }),
    ...(error.cause !== undefined && depth < 5 && { cause: clean(error.cause, depth + 1) }),
  };
}

export function createLog(options: LogOptions): Log {
  const destination = options.destination ?? pino.destination({ fd: 1, sync: true });
  const sink = options.pretty
    ? { write: (line: string) => destination.write(`${JSON.stringify(JSON.parse(line), null, 2)}\n`) }
    : destination;
  const root = pino(
    {
      level: options.level,
      base: null,
      // Errors are described by `clean`, which redacts them.
      serializers: { err: (described: unknown) => described },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink,
  );
  return wrap(root);
}

function wrap(logger: pino.Logger): Log {
  const write = (level: "debug" | "info" | "warn" | "error", fields: LogFields, message: string) => {
    // Redaction walks the fields, so a line that nobody will see must not pay for it.
    if (logger.isLevelEnabled(level)) logger[level](cleanFields(fields, 0), redact(message));
  };
  return {
    debug: (fields, message) => write("debug", fields, message),
    info: (fields, message) => write("info", fields, message),
    warn: (fields, message) => write("warn", fields, message),
    error: (fields, message) => write("error", fields, message),
    debugEnabled: logger.isLevelEnabled("debug"),
    child: (fields) => wrap(logger.child(cleanFields(fields, 0))),
  };
}
