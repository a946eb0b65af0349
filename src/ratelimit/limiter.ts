import type { NamedRequest } from "../infra/named-request.ts";
import type { Ask, Charge, Refund, SlotOrder, Taken, Verdict } from "./counters.ts";

/** A lease that goes on: what it was taken for, and how that stands. */
export interface RenewJudgement extends Taken {
  readonly asks: readonly Ask[];
}

/** Decides about limits, by the shared counters or by what each rule says of their absence. */
export interface Limiter {
  check(namespace: string, asks: readonly Ask[], charge: Charge, request: NamedRequest | undefined): Promise<Verdict>;
  refund(
    namespace: string,
    asks: readonly Ask[],
    chargedAt: number | undefined,
    request: NamedRequest | undefined,
  ): Promise<Refund>;
  /** Rejects with CountersUnavailableError when the shared counters cannot be reached. */
  reset(namespace: string, asks: readonly Ask[]): Promise<void>;
  acquire(namespace: string, asks: readonly Ask[], order: Pick<SlotOrder, "ttlMs" | "request">): Promise<Taken>;
  /** Undefined when the lease is over. Rejects with CountersUnavailableError when that cannot be told. */
  renew(namespace: string, leaseId: string, ttlMs: number): Promise<RenewJudgement | undefined>;
  giveBack(namespace: string, leaseId: string): Promise<boolean>;
}
