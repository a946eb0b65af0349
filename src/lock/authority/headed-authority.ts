import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { LockAuthorityChangingError } from "../failures.ts";
import type { Authority, Released, Taken } from "./authority.ts";
import type { Head, Heads, Mode } from "./head.ts";

export interface HeadedOptions {
  /** Decides as `mode`; given what SQL says of who decides, as it was read last. */
  readonly open: (head: () => Head) => Authority;
  readonly mode: Mode;
  readonly heads: Heads;
  readonly clock: Clock;
  readonly log: Log;
  readonly watchMs?: number;
}

/** How often SQL is asked whether another authority was configured meanwhile. */
const WATCH_MS = 1_000;

/**
 * An authority that keeps its leases outside of SQL and has no fallback. When the configuration changes from one authority to
 * another, the new one waits until the leases of the one before are over, and instances that still run with the one before stop
 * granting. Otherwise SQL is not needed: while it is away, what was read last goes on being so.
 */
export async function createHeadedAuthority(options: HeadedOptions): Promise<Authority> {
  const { open, mode, heads, clock, log, watchMs = WATCH_MS } = options;
  let head = await heads.become(mode);
  let quietUntil = clock.monotonic() + head.quietMs;
  let longestMs = head.longestMs;
  if (head.quietMs > 0) {
    log.warn(
      { mode, quietMs: head.quietMs },
      "locks are not granted before the leases of the authority before are over",
    );
  }
  const authority = open(() => head);

  function mayDecide(): void {
    if (head.mode !== mode) throw new LockAuthorityChangingError(`${head.mode || "nobody"} decides now, not ${mode}`);
    const quietMs = quietUntil - clock.monotonic();
    if (quietMs > 0) throw new LockAuthorityChangingError("leases of before may last", quietMs);
  }

  /** Whether the authority may be asked at once. */
  function mayAsk(ttlMs: number): boolean {
    return ttlMs <= longestMs && head.mode === mode && quietUntil <= clock.monotonic();
  }

  async function decide<T>(ttlMs: number, work: () => Promise<T>): Promise<T> {
    mayDecide();
    if (ttlMs > longestMs) await announce(ttlMs);
    return decided(await work());
  }

  function decided<T>(result: T): T {
    mayDecide();
    return result;
  }

  /** For whoever is to decide next, who has to wait out the longest lease. */
  async function announce(ttlMs: number): Promise<void> {
    const { sinceEpoch } = head;
    try {
      if (!(await heads.allowLeases(mode, ttlMs))) await look();
      // What was told in a time before is no longer known.
      else if (head.sinceEpoch === sinceEpoch) longestMs = Math.max(longestMs, ttlMs);
    } catch (err) {
      if (!(err instanceof UnavailableError)) throw err;
      log.debug({ err }, "a longer lease than before could not be announced; the next one tries again");
    }
    mayDecide();
  }

  async function look(): Promise<void> {
    const before = head;
    head = await heads.read();
    if (head.sinceEpoch === before.sinceEpoch) return;
    // Leases of who decided meanwhile may last, and what was announced before is forgotten.
    quietUntil = clock.monotonic() + head.quietMs;
    longestMs = head.longestMs;
    if (head.mode === mode) log.info({ mode }, "this authority over locks decides again");
    else
      log.error({ mode, now: head.mode }, "another authority over locks was configured elsewhere: this one has ended");
  }

  let isLooking = false;
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    look()
      .catch((err: unknown) => log.debug({ err }, "SQL does not say who decides about locks"))
      .finally(() => {
        isLooking = false;
      });
  }, watchMs).unref();

  return {
    get kind() {
      return authority.kind;
    },
    // Without an async function: this and releasing is what is asked most.
    take: (order) =>
      mayAsk(order.ttlMs)
        ? authority.take(order).then(decided<Taken>)
        : decide(order.ttlMs, () => authority.take(order)),
    renew: (order) => decide(order.ttlMs ?? 0, () => authority.renew(order)),
    release: (order) =>
      mayAsk(0) ? authority.release(order).then(decided<Released>) : decide(0, () => authority.release(order)),
    look: (name) => decide(0, () => authority.look(name)),
    list: (query) => decide(0, () => authority.list(query)),
    remember: (name, request, text) => decide(0, () => authority.remember(name, request, text)),
    async close() {
      clearInterval(timer);
      await authority.close();
    },
  };
}
