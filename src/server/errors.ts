import { randomBytes } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { status as Code } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import { Failure, type FailureDetail, type FailureKind } from "../infra/failure.ts";

/** The one table from what can go wrong to the canonical code that callers see. */
const codes: Readonly<Record<FailureKind, Code>> = {
  invalid: Code.INVALID_ARGUMENT,
  precondition: Code.FAILED_PRECONDITION,
  not_found: Code.NOT_FOUND,
  already_exists: Code.ALREADY_EXISTS,
  conflict: Code.ABORTED,
  out_of_range: Code.OUT_OF_RANGE,
  too_large: Code.RESOURCE_EXHAUSTED,
  unauthenticated: Code.UNAUTHENTICATED,
  forbidden: Code.PERMISSION_DENIED,
  unavailable: Code.UNAVAILABLE,
  deadline: Code.DEADLINE_EXCEEDED,
  cancelled: Code.CANCELLED,
  unimplemented: Code.UNIMPLEMENTED,
};

/** Canonical names as gRPC writes them, by number. */
export const codeNames: readonly string[] = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

export function codeName(code: number): string {
  return codeNames[code] ?? "UNKNOWN";
}

/** How a call failed, as every caller is told it on either plane. */
export interface CallError {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  readonly details: readonly FailureDetail[];
  /** What was thrown. For the log only. */
  readonly thrown: unknown;
  /** For errors nobody expected: stands in the reply and in the log, so that one finds the other. */
  readonly errorId: string | undefined;
}

// Trailers have to fit into the header limits of all gRPC clients (8 KiB in some), details and message twice included.
const messageCap = 1024;
const violationsCap = 16;
const descriptionCap = 160;
const domain = "holdfast";

export function callErrorOf(thrown: unknown): CallError {
  if (thrown instanceof Failure) {
    return {
      code: codes[thrown.kind],
      reason: thrown.reason,
      message: cut(thrown.message, messageCap),
      details: detailsOf(thrown),
      thrown,
      errorId: undefined,
    };
  }
  const errorId = randomBytes(6).toString("hex");
  const info = create(ErrorInfoSchema, { reason: "INTERNAL", domain, metadata: { error_id: errorId } });
  return {
    code: Code.INTERNAL,
    reason: "INTERNAL",
    message: `internal error (id ${errorId})`,
    details: [{ desc: ErrorInfoSchema, message: info }],
    thrown,
    errorId,
  };
}

function detailsOf(failure: Failure): readonly FailureDetail[] {
  const info = create(ErrorInfoSchema, { reason: failure.reason, domain, metadata: { ...failure.metadata } });
  const details: FailureDetail[] = [{ desc: ErrorInfoSchema, message: info }];
  if (failure.violations.length > 0) {
    const shown = failure.violations.slice(0, violationsCap);
    const fieldViolations = shown.map((violation) => ({
      field: cut(violation.field, descriptionCap),
      description: cut(violation.description, descriptionCap),
      reason: failure.reason,
    }));
    details.push({ desc: BadRequestSchema, message: create(BadRequestSchema, { fieldViolations }) });
  }
  if (failure.retryAfterMs !== undefined) {
    const ms = Math.max(0, Math.round(failure.retryAfterMs));
    const retryDelay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
    details.push({ desc: RetryInfoSchema, message: create(RetryInfoSchema, { retryDelay }) });
  }
  if (failure.detail !== undefined) details.push(failure.detail);
  return details;
}

// Lone surrogates (JSON may carry them) can neither be encoded as UTF-8 nor percent-encoded into grpc-message.
function cut(text: string, cap: number): string {
  const whole = text.length <= cap ? text : `${text.slice(0, cap - 1)}…`;
  return whole.toWellFormed();
}

/** The bytes of `grpc-status-details-bin`. */
export function statusDetails(error: CallError): Buffer {
  const status = create(StatusSchema, {
    code: error.code,
    message: error.message,
    details: error.details.map(({ desc, message }) => anyPack(desc, message)),
  });
  return Buffer.from(toBinary(StatusSchema, status));
}
