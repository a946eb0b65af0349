import { Fields, textFault } from "../infra/fields.ts";

/** The limits that the contract states. */
export const LIMITS = {
  namespaceBytes: 128,
  keyBytes: 1024,
  tagBytes: 256,
  tags: 64,
  batch: 1000,
  replyBytes: 4 * 1024 * 1024,
  contentTypeBytes: 128,
  patterns: 100,
  ttlMs: 10 * 365 * 86_400_000,
  leaseTtlMs: 600_000,
  waitMs: 30_000,
} as const;

export const DEFAULT_NAMESPACE = "default";
const NAMESPACE = /^[A-Za-z0-9._:-]{1,128}$/;

export function keyFault(value: string): string | undefined {
  return textFault(value, LIMITS.keyBytes);
}

/** What is wrong with a request of the cache. */
export class CacheFields extends Fields {
  key(field: string, value: string): void {
    const fault = keyFault(value);
    if (fault !== undefined) this.refuse(field, fault);
  }

  namespace(value: string): string {
    if (value === "") return DEFAULT_NAMESPACE;
    if (!NAMESPACE.test(value)) {
      this.refuse("namespace", `must be 1 to ${LIMITS.namespaceBytes} letters, digits or any of . _ : -`);
    }
    return value;
  }
}
