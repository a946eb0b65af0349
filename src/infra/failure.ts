import type { DescMessage, Message } from "@bufbuild/protobuf";

/**
 * What can go wrong, in the words of the domain. Rules throw these; one table (server/errors.ts) turns a kind into a gRPC
 * code and details. Anything else that is thrown is a defect and reaches the caller as INTERNAL, its cause only in the log.
 */
export type FailureKind =
  | "invalid" // the request is wrong, whatever the state: INVALID_ARGUMENT
  | "precondition" // the state forbids it: FAILED_PRECONDITION
  | "not_found"
  | "already_exists"
  | "conflict" // lost a race; read again and retry: ABORTED
  | "out_of_range"
  | "too_large" // a stated limit is exceeded: RESOURCE_EXHAUSTED
  | "unauthenticated"
  | "forbidden" // PERMISSION_DENIED
  | "unavailable" // a part is away; retry later: UNAVAILABLE
  | "deadline" // DEADLINE_EXCEEDED
  | "cancelled"
  | "unimplemented";

export interface FieldViolation {
  /** Path of the field as the proto names it, such as `items[3].key`. */
  readonly field: string;
  readonly description: string;
}

/** A message of the contract that tells more of a failure. */
export interface FailureDetail {
  readonly desc: DescMessage;
  readonly message: Message;
}

export interface FailureDetails {
  /** Fields to blame; becomes google.rpc.BadRequest. */
  readonly violations?: readonly FieldViolation[];
  /** Facts for programs; becomes ErrorInfo.metadata. Never a secret. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** When a retry can help; becomes google.rpc.RetryInfo. */
  readonly retryAfterMs?: number;
  /** What the contract promises besides; is sent as it is, so it has to be small: see the caps in server/errors.ts. */
  readonly detail?: FailureDetail;
  readonly cause?: unknown;
}

export class Failure extends Error {
  readonly kind: FailureKind;
  /** Stable, UPPER_SNAKE_CASE; programs match on it. */
  readonly reason: string;
  readonly violations: readonly FieldViolation[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly detail: FailureDetail | undefined;

  constructor(kind: FailureKind, reason: string, message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.kind = kind;
    this.reason = reason;
    this.violations = details.violations ?? [];
    this.metadata = details.metadata ?? {};
    this.retryAfterMs = details.retryAfterMs;
    this.detail = details.detail;
  }
}

/** One or more fields of a request are wrong. Names every one of them. */
export class InvalidFieldsError extends Failure {
  constructor(violations: readonly FieldViolation[]) {
    super("invalid", "FIELD_INVALID", violations.map((v) => `${v.field}: ${v.description}`).join("; "), { violations });
  }
}

export function invalidField(field: string, description: string): InvalidFieldsError {
  return new InvalidFieldsError([{ field, description }]);
}

/** Something the service stands on is away. Safe to retry after the delay. */
export class UnavailableError extends Failure {
  constructor(reason: string, message: string, details: FailureDetails = {}) {
    super("unavailable", reason, message, { retryAfterMs: 1000, ...details });
  }
}
