import type { NamespacePolicy } from "./policy.ts";

/** What the values that one call has under way may take, at their longest. */
const MOST_BYTES = 256 * 1024 * 1024;

/** How many keys of a namespace one call reads at once: how long their values are is not known before they are here. */
export function keysAtOnce({ maxBytes }: NamespacePolicy): number {
  return Math.max(16, Math.floor(MOST_BYTES / maxBytes));
}

/** The items in order, as many at a time as one call may read. */
export function* portions<T>(items: readonly T[], policy: NamespacePolicy): Generator<readonly T[]> {
  const most = keysAtOnce(policy);
  for (let at = 0; at < items.length; at += most) {
    yield items.length <= most ? items : items.slice(at, at + most);
  }
}
