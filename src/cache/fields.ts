import type { Duration } from "@bufbuild/protobuf/wkt";
import { type FieldViolation, InvalidFieldsError } from "../infra/failure.ts";

/** The limits that the contract states. */
export const LIMITS = {
  namespaceBytes: 128,
  keyBytes: 1024,
  tagBytes: 256,
  tags: 64,
  batch: 1000,
  contentTypeBytes: 128,
  requestIdBytes: 128,
  patterns: 100,
  ttlMs: 10 * 365 * 86_400_000,
  leaseTtlMs: 600_000,
  waitMs: 30_000,
  pageSize: 1000,
  pageSizeDefault: 100,
} as const;

/** Collects what is wrong with a request, so that the caller learns all of it at once. */
export interface Fields {
  refuse(field: string, description: string): void;
  /** Whether the text is within its limits. */
  text(field: string, value: string, mostBytes: number, mayBeEmpty?: boolean): boolean;
  key(field: string, value: string): boolean;
  namespace(value: string): string;
  count(field: string, length: number, most: number): void;
  /** Milliseconds of a duration from more than zero (or zero, when allowed) up to `most`. Undefined when unset or refused. */
  duration(field: string, value: Duration | undefined, mostMs: number, mayBeZero?: boolean): number | undefined;
  readonly violations: readonly FieldViolation[];
  /** Throws if anything was refused. */
  done(): void;
}

export const DEFAULT_NAMESPACE = "default";
const NAMESPACE = /^[A-Za-z0-9._:-]{1,128}$/;

export function createFields(): Fields {
  const violations: FieldViolation[] = [];
  const refuse = (field: string, description: string) => {
    violations.push({ field, description });
  };

  function text(field: string, value: string, mostBytes: number, mayBeEmpty = false): boolean {
    const before = violations.length;
    if (value === "" && !mayBeEmpty) refuse(field, "must not be empty");
    // A character takes at most three bytes for each of its UTF-16 units, so short texts need not be counted.
    if (value.length * 3 > mostBytes) {
      const bytes = Buffer.byteLength(value);
      if (bytes > mostBytes) refuse(field, `is ${bytes} bytes long; the limit is ${mostBytes}`);
    }
    if (value.includes("\0")) refuse(field, "must not contain the character NUL");
    return violations.length === before;
  }

  return {
    refuse,
    text,
    key: (field, value) => text(field, value, LIMITS.keyBytes),
    namespace(value) {
      if (value === "") return DEFAULT_NAMESPACE;
      if (!NAMESPACE.test(value)) {
        refuse("namespace", `must be 1 to ${LIMITS.namespaceBytes} letters, digits or any of . _ : -`);
      }
      return value;
    },
    count(field, length, most) {
      if (length === 0) refuse(field, "must not be empty");
      else if (length > most) refuse(field, `has ${length} elements; the limit is ${most}`);
    },
    duration(field, value, mostMs, mayBeZero = false) {
      if (value === undefined) return undefined;
      const ms = Number(value.seconds) * 1000 + value.nanos / 1_000_000;
      if (ms < 0 || value.nanos < 0) refuse(field, "must not be negative");
      else if (ms === 0 && !mayBeZero) refuse(field, "must be more than zero");
      else if (ms > mostMs) refuse(field, `is ${ms / 1000} seconds; the limit is ${mostMs / 1000}`);
      else return ms;
      return undefined;
    },
    violations,
    done() {
      if (violations.length > 0) throw new InvalidFieldsError(violations);
    },
  };
}
