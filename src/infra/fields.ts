import type { Duration } from "@bufbuild/protobuf/wkt";
import { type FieldViolation, InvalidFieldsError } from "./failure.ts";

const REQUEST_ID_BYTES = 128;
const PAGE_SIZE = 1000;
const PAGE_SIZE_DEFAULT = 100;

/** What is wrong with a text, if anything. */
export function textFault(value: string, mostBytes: number, mayBeEmpty = false): string | undefined {
  if (value === "") return mayBeEmpty ? undefined : "must not be empty";
  // A character takes at most three bytes for each of its UTF-16 units, so short texts need not be counted.
  if (value.length * 3 > mostBytes) {
    const bytes = Buffer.byteLength(value);
    if (bytes > mostBytes) return `is ${bytes} bytes long; the limit is ${mostBytes}`;
  }
  return value.includes("\0") ? "must not contain the character NUL" : undefined;
}

const NONE: readonly FieldViolation[] = [];

/** Collects what is wrong with a request, so that the caller learns all of it at once. A class: it is made for each call. */
export class Fields {
  #violations: FieldViolation[] | undefined;

  get violations(): readonly FieldViolation[] {
    return this.#violations ?? NONE;
  }

  refuse(field: string, description: string): void {
    this.#violations ??= [];
    this.#violations.push({ field, description });
  }

  /** Throws if anything was refused. */
  done(): void {
    if (this.#violations !== undefined) throw new InvalidFieldsError(this.#violations);
  }

  text(field: string, value: string, mostBytes: number, mayBeEmpty = false): void {
    const fault = textFault(value, mostBytes, mayBeEmpty);
    if (fault !== undefined) this.refuse(field, fault);
  }

  count(field: string, length: number, most: number): void {
    if (length === 0) this.refuse(field, "must not be empty");
    else if (length > most) this.refuse(field, `has ${length} elements; the limit is ${most}`);
  }

  pageSize(pageSize: number): number {
    if (pageSize < 0) this.refuse("page_size", "must not be negative");
    return pageSize === 0 ? PAGE_SIZE_DEFAULT : Math.min(pageSize, PAGE_SIZE);
  }

  requestId(requestId: string): string {
    this.text("request_id", requestId, REQUEST_ID_BYTES, true);
    return requestId;
  }

  /**
   * Whole milliseconds of a duration from more than zero (or zero, when allowed) up to `most`; what is shorter than one counts
   * as one. Undefined when unset or refused.
   */
  duration(field: string, value: Duration | undefined, mostMs: number, mayBeZero = false): number | undefined {
    if (value === undefined) return undefined;
    const ms = Number(value.seconds) * 1000 + value.nanos / 1_000_000;
    if (value.nanos > 999_999_999) this.refuse(field, "is not a duration: it has more than 999,999,999 nanoseconds");
    else if (ms < 0 || value.nanos < 0) this.refuse(field, "must not be negative");
    else if (ms === 0 && !mayBeZero) this.refuse(field, "must be more than zero");
    else if (ms > mostMs) this.refuse(field, `is ${ms / 1000} seconds; the limit is ${mostMs / 1000}`);
    else return Math.ceil(ms);
    return undefined;
  }
}
