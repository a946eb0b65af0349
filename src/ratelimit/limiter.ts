import type { NamedRequest } from "../infra/named-request.ts";
import type { Ask, Charge, Lease, SlotOrder, Standing } from "./counters.ts";

/** Where a decision came from. */
export type Basis = "shared" | "local_share" | "open" | "closed";

export interface Status extends Standing {
  readonly basis: Basis;
}

export interface Judgement {
  readonly at: number;
  readonly allowed: boolean;
  /** In the order of what was asked. */
  readonly statuses: readonly Status[];
}

export interface RefundJudgement {
  readonly refunded: readonly number[];
  readonly statuses: readonly Status[];
}

export interface LeaseJudgement extends Judgement {
  readonly lease: Lease | undefined;
}

/** A lease that goes on: what it was taken for, and how that stands. */
export interface RenewJudgement extends LeaseJudgement {
  readonly asks: readonly Ask[];
}

/** Decides about limits, by the shared counters or by what each rule says of their absence. */
export interface Limiter {
  check(namespace: string, asks: readonly Ask[], charge: Charge, request: NamedRequest | undefined): Promise<Judgement>;
  refund(
    namespace: string,
    asks: readonly Ask[],
    chargedAt: number | undefined,
    request: NamedRequest | undefined,
  ): Promise<RefundJudgement>;
  /** Rejects with CountersUnavailableError when the shared counters cannot be reached. */
  reset(namespace: string, asks: readonly Ask[]): Promise<void>;
  acquire(
    namespace: string,
    asks: readonly Ask[],
    order: Pick<SlotOrder, "ttlMs" | "request">,
  ): Promise<LeaseJudgement>;
  /** Undefined when the lease is over. Rejects with CountersUnavailableError when that cannot be told. */
  renew(namespace: string, leaseId: string, ttlMs: number): Promise<RenewJudgement | undefined>;
  giveBack(namespace: string, leaseId: string): Promise<boolean>;
}
