import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import type { Timer } from "../../infra/timer.ts";
import type { Authority, Lease, Renewed } from "../authority/authority.ts";
import type { LockMetrics, LostCause } from "../metrics.ts";
import { validUntilOf } from "../wait/valid-for.ts";
import { Mailbox } from "./mailbox.ts";

/** A lease and until when it may be relied on, on this process' monotonic clock. */
export interface Kept {
  readonly lease: Lease;
  readonly validUntil: number;
}

/** How the keeping of a grant ended. */
export type KeepingEnd =
  | { readonly kind: "lost"; readonly cause: LostCause }
  | { readonly kind: "handover"; readonly kept: Kept };

export interface KeepingParts {
  readonly authority: Pick<Authority, "renew" | "release">;
  readonly metrics: LockMetrics;
  readonly clock: Clock;
  readonly timer: Timer;
  readonly log: Log;
  /** Called when the lock was given back, for those who wait on this instance. */
  readonly onReleased: (name: string) => void;
}

/** A renewal that failed is tried again after this share of the lease, within these bounds. */
const AGAIN = { share: 0.05, leastMs: 20, mostMs: 1_000 } as const;
/** So long before the lease may be over its loss is told: a share of the lease, within these bounds. */
const NOTICE = { share: 0.05, leastMs: 10, mostMs: 500 } as const;

/** The keeping of one grant by one stream: renews it every third of its lease, and knows when it is lost. */
export class Keeping {
  readonly news = new Mailbox<Kept, KeepingEnd>();
  readonly #parts: KeepingParts;
  readonly #streamId: string;
  readonly #ttlMs: number;
  #kept: Kept;
  #end: KeepingEnd | undefined;
  #renewing: Promise<void> | undefined;
  /** Asked to look while a renewal was on its way, whose answer may be older. */
  #isDoubted = false;
  #cancelRenewal: (() => void) | undefined;
  #cancelLimit: (() => void) | undefined;
  #isStopped = false;
  #isHandedOver = false;

  constructor(
    parts: KeepingParts,
    kept: Kept,
    { streamId, ttlMs }: { readonly streamId: string; readonly ttlMs: number },
  ) {
    this.#parts = parts;
    this.#kept = kept;
    this.#streamId = streamId;
    this.#ttlMs = ttlMs;
    this.#goOn(kept);
  }

  get name(): string {
    return this.#kept.lease.grant.name;
  }

  get kept(): Kept {
    return this.#kept;
  }

  /** Something may have happened to the grant: looks at once. */
  check(): void {
    if (this.#renewing !== undefined) this.#isDoubted = true;
    else this.#renew();
  }

  /** Renews once more, and leaves the lease to whoever goes on with it. */
  async handOver(): Promise<void> {
    this.#isHandedOver = true;
    this.#cancelTimers();
    await this.#renewing;
    if (this.#isOver) return;
    this.#cancelTimers();
    this.#renew();
    await this.#renewing;
    if (this.#isOver) return;
    // Without a renewal there is what is left, if anything is.
    if (this.#parts.clock.monotonic() >= this.#kept.validUntil) {
      this.#lose("authority_unavailable");
      return;
    }
    this.#finish({ kind: "handover", kept: this.#kept });
    this.#parts.metrics.handedOver();
  }

  /** The stream is over. What it still holds is released, unless the stream ends because this instance does. */
  async stop(andRelease: boolean): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#cancelTimers();
    await this.#renewing;
    const holdsNothing = this.#end !== undefined && !mayStillHold(this.#end);
    if (andRelease && !holdsNothing) await this.#release();
  }

  get #isOver(): boolean {
    return this.#isStopped || this.#end !== undefined;
  }

  #goOn(kept: Kept): void {
    this.#kept = kept;
    this.#cancelTimers();
    this.#renewAfter(this.#ttlMs / 3);
    const limitMs = kept.validUntil - shareOf(this.#ttlMs, NOTICE) - this.#parts.clock.monotonic();
    this.#cancelLimit = this.#parts.timer(() => this.#reachLimit(), Math.max(0, limitMs));
  }

  #renewAfter(ms: number): void {
    this.#cancelRenewal?.();
    this.#cancelRenewal = this.#parts.timer(() => this.#renew(), ms);
  }

  #renew(): void {
    if (this.#isOver || this.#renewing !== undefined) return;
    this.#cancelRenewal?.();
    this.#renewing = this.#ask().finally(() => {
      this.#renewing = undefined;
      if (!this.#isDoubted) return;
      this.#isDoubted = false;
      this.#renew();
    });
  }

  async #ask(): Promise<void> {
    const { authority, metrics, clock, log } = this.#parts;
    const { name, token } = this.#kept.lease.grant;
    const asked = clock.monotonic();
    try {
      const renewed = await metrics.renewing(
        authority.renew({ name, token, ttlMs: this.#ttlMs, streamId: this.#streamId, heir: undefined }),
      );
      this.#learn(renewed, asked);
    } catch (err) {
      if (!(err instanceof UnavailableError)) log.error({ err, lock: name }, "a lock could not be renewed");
      if (!this.#isOver) this.#renewAfter(shareOf(this.#ttlMs, AGAIN));
    }
  }

  #learn(renewed: Renewed, asked: number): void {
    if (this.#isOver) return;
    if (renewed.kind === "over") {
      this.#lose(renewed.cause);
      return;
    }
    const kept = keptFrom(renewed.lease, asked);
    this.#goOn(kept);
    // What is handed over tells it too.
    if (!this.#isHandedOver) this.news.put(kept);
  }

  /** The lease may be over soon, and nobody has renewed it. */
  #reachLimit(): void {
    const isPast = this.#parts.clock.monotonic() >= this.#kept.validUntil;
    this.#lose(isPast ? "expired" : "authority_unavailable");
  }

  #lose(cause: LostCause): void {
    if (this.#isOver) return;
    this.#parts.metrics.lost(cause);
    this.#finish({ kind: "lost", cause });
  }

  #finish(end: KeepingEnd): void {
    this.#end = end;
    this.#cancelTimers();
    this.news.end(end);
  }

  #cancelTimers(): void {
    this.#cancelRenewal?.();
    this.#cancelLimit?.();
    this.#cancelRenewal = undefined;
    this.#cancelLimit = undefined;
  }

  /** While the authority is away it is asked again, until the lease has run out by itself. */
  async #release(): Promise<void> {
    const { authority, metrics, clock, timer, log, onReleased } = this.#parts;
    const { name, token } = this.#kept.lease.grant;
    const untilMs = this.#kept.validUntil;
    for (;;) {
      try {
        await metrics.releasing(
          authority.release({ name, token, streamId: this.#streamId, end: "released", undo: false }),
        );
        onReleased(name);
        return;
      } catch (err) {
        if (!(err instanceof UnavailableError)) log.error({ err, lock: name }, "a lock could not be released");
        if (clock.monotonic() >= untilMs) return;
        await new Promise<void>((resolve) => timer(resolve, shareOf(this.#ttlMs, AGAIN)));
      }
    }
  }
}

/** A renewal may still have reached its authority, though no answer came. */
function mayStillHold(end: KeepingEnd): boolean {
  return end.kind === "lost" && (end.cause === "authority_unavailable" || end.cause === "expired");
}

export function keptFrom(lease: Lease, asked: number): Kept {
  return { lease, validUntil: validUntilOf(lease, asked) };
}

function shareOf(ttlMs: number, bounds: { readonly share: number; readonly leastMs: number; readonly mostMs: number }) {
  return Math.min(Math.max(ttlMs * bounds.share, bounds.leastMs), bounds.mostMs);
}
