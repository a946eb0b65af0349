import type { Authority, Lease, Taken } from "../../../src/lock/authority/authority.ts";
import type { TakeOrder } from "../../../src/lock/record/decide.ts";
import { until } from "../../support/until.ts";
import { type OpenAuthorities, takeOrder } from "../authorities.ts";

export type AuthorityFactory = () => Promise<OpenAuthorities>;

/** A lease that a test waits out. */
export const SHORT_MS = 150;

/** The first instance, and another if there is one. */
export function two({ instances }: OpenAuthorities): readonly [Authority, Authority] {
  const [one, other = one] = instances;
  return [one.authority, other.authority];
}

export async function granted(authority: Authority, name: string, given: Partial<TakeOrder> = {}): Promise<Lease> {
  return leaseOf(await authority.take(takeOrder(name, given)));
}

export function leaseOf(taken: Taken): Lease {
  if (taken.kind !== "granted") throw new Error(`not granted: ${JSON.stringify(taken)}`);
  return taken.lease;
}

export async function isOver(authority: Authority, name: string): Promise<void> {
  await until(async () => (await authority.look(name)).lease === undefined, { what: "the end of the lease" });
}
