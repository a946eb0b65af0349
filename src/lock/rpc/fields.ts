import type { Duration } from "@bufbuild/protobuf/wkt";
import { Fields } from "../../infra/fields.ts";
import { lockNameFault } from "../../infra/lock-name.ts";

const second = 1000;
const hour = 3600 * second;

/** The limits that the contract states. */
export const LIMITS = {
  nameBytes: 1024,
  ownerBytes: 256,
  purposeBytes: 1024,
  reasonBytes: 1024,
  ttlMs: { least: 100, most: 24 * hour },
  holdTtlMs: { least: second, most: 24 * hour },
  acquireWaitMs: hour,
  holdWaitMs: 24 * hour,
  waiting: 10_000,
} as const;

/** What is wrong with a request about locks. */
export class LockFields extends Fields {
  name(value: string): string {
    const fault = lockNameFault(value);
    if (fault !== undefined) this.refuse("name", fault);
    return value;
  }

  /** Undefined when it is not said. */
  ttl(value: Duration | undefined, { least, most }: { readonly least: number; readonly most: number }) {
    const before = this.violations.length;
    const ms = this.duration("ttl", value, most, true);
    if (ms !== undefined && ms < least && this.violations.length === before) {
      this.refuse("ttl", `is ${ms / second} seconds; at least ${least / second} are needed`);
    }
    return ms;
  }

  token(field: string, value: bigint): number {
    if (value === 0n) this.refuse(field, "is required: the token that came with the grant");
    return tokenFrom(value);
  }

  people(owner: string, purpose: string): void {
    this.text("owner", owner, LIMITS.ownerBytes, true);
    this.text("purpose", purpose, LIMITS.purposeBytes, true);
  }
}

/** What is larger than any token stays so. */
export function tokenFrom(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}
