import type { Sealed } from "./record.ts";

/**
 * What records are searched by, as numbers: 53 bits of a hash. Different texts may share one, so whoever finds a record by its key
 * compares the text itself. Stored, so this must never change.
 */
export function keyOf(...texts: readonly string[]): number {
  let high = 0x811c9dc5;
  let low = 0x9e3779b1;
  for (const text of texts) {
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      high = Math.imul(high ^ unit, 0x01000193);
      low = Math.imul(low ^ unit, 0x85ebca6b);
      low ^= low >>> 15;
    }
    // Where one text ends: ("ab", "c") is not ("a", "bc").
    high = Math.imul(high ^ 0x1_0000, 0x01000193);
    low = Math.imul(low ^ 0x1_0000, 0x85ebca6b);
  }
  low = Math.imul(low ^ (high >>> 16), 0xc2b2ae35);
  return ((high ^ (low >>> 13)) >>> 0) * 0x20_0000 + ((low ^ (high >>> 7)) & 0x1f_ffff);
}

export interface SearchKeys {
  readonly actor: number;
  readonly action: number;
  /** Undefined, like the ones below, when the record does not state it. */
  readonly resource: number | undefined;
  readonly resourceType: number | undefined;
  readonly trace: number | undefined;
  readonly service: number | undefined;
}

export function searchKeys(record: Sealed): SearchKeys {
  const { actor, action, resourceType, resourceId, traceId, service } = record;
  return {
    actor: keyOf(actor),
    action: keyOf(action),
    resource: resourceType === "" ? undefined : keyOf(resourceType, resourceId),
    resourceType: resourceType === "" ? undefined : keyOf(resourceType),
    trace: traceId === "" ? undefined : keyOf(traceId),
    service: service === "" ? undefined : keyOf(service),
  };
}
