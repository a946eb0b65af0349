import { ageMs, type Clock, type Moment, momentOf } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import type { Head, Heads, Mode } from "./head.ts";

/** The time for which one of the two decides. */
export interface Reign {
  readonly mode: "redis" | "postgres";
  /** No other reign begins in this epoch. */
  readonly sinceEpoch: number;
}

export interface ReignsOptions {
  readonly heads: Pick<Heads, "read" | "announce">;
  readonly clock: Clock;
  readonly log: Log;
  readonly timer?: Timer;
  /** How often SQL is read. Default: a second. */
  readonly watchMs?: number;
  /** For so long it is believed, counted from when it was asked. Default: 3 seconds. */
  readonly trustMs?: number;
  readonly onChange?: (mode: Mode) => void;
}

/**
 * Who decides, as this instance knows it from SQL, and until when leases outside of SQL may last, as SQL knows it.
 *
 * SQL has `busy_until`, and whoever takes over grants nothing before that. A lease of Redis is told to nobody before an
 * announcement that it may last so long was committed while Redis decided. So none outlasts the wait, whatever this instance has
 * not heard of meanwhile. Announcements reach three seconds further than the leases that are asked for, and are repeated while
 * there are such: the price is that a failover waits so much longer, and that an instance from which SQL is away for three
 * seconds grants no more.
 */
export interface Reigns {
  /** As it was read last. */
  readonly head: Head;
  /** Throws when nobody may decide now, or when it is not certain who. */
  current(): Reign;
  /**
   * Undefined: it was announced that leases may last so long from now on. Otherwise resolves when it is. 0: there is none.
   */
  announced(ms: number): Promise<void> | undefined;
  /** Asks SQL now. Never rejects. */
  look(): Promise<void>;
  close(): void;
}

const WATCH_MS = 1_000;
const TRUST_MS = 3_000;
/** An announcement that took so long to be made that it no longer helps is made again. */
const MOST_ANNOUNCED = 2;

interface Announcement {
  readonly asked: Moment;
  readonly forMs: number;
}

export async function openReigns(options: ReignsOptions): Promise<Reigns> {
  const { heads, clock, log, timer = systemTimer, watchMs = WATCH_MS, trustMs = TRUST_MS, onChange } = options;
  const now = () => clock.monotonic();
  let lastAsked = momentOf(clock);
  let head = await heads.read();
  let quietUntil = now() + head.quietMs;
  /** Leases that end before this have been announced: for so long from when it was asked. */
  let announcement: Announcement = { asked: lastAsked, forMs: head.busyMs };
  /** The longest of those asked for since the last look, and in the time before it. */
  let wantedMs = 0;
  let wantedBeforeMs = 0;
  let looking: Promise<void> | undefined;
  let lookingNext: Promise<void> | undefined;
  let announcing: Promise<void> | undefined;
  let isClosed = false;

  function leftMs({ asked, forMs }: Announcement): number {
    return forMs - ageMs(clock, asked);
  }

  /** What SQL answered to what was asked then. Answers may overtake each other. */
  function learn(next: Head, asked: Moment): void {
    const announced = { asked, forMs: next.busyMs };
    if (asked.monotonic < lastAsked.monotonic) {
      const isOfToday = next.sinceEpoch === head.sinceEpoch && ageMs(clock, asked) <= trustMs;
      if (isOfToday && leftMs(announced) > leftMs(announcement)) announcement = announced;
      return;
    }
    const before = head;
    lastAsked = asked;
    head = next;
    announcement = announced;
    quietUntil = now() + next.quietMs;
    if (before.mode === next.mode) return;
    const { mode, quietMs } = next;
    log.warn({ mode, before: before.mode, quietMs }, "another authority decides about locks from here on");
    if (mode !== "") onChange?.(mode);
  }

  function current(): Reign {
    const { mode, sinceEpoch } = head;
    // Postgres looks at the head itself, in each transaction.
    if (mode === "postgres") return { mode, sinceEpoch };
    if (ageMs(clock, lastAsked) > trustMs) {
      void look();
      throw new LockAuthorityUnavailableError(`SQL has not said for ${trustMs} ms who decides`);
    }
    if (mode !== "redis") throw new LockAuthorityChangingError(`${mode || "nobody"} decides now`);
    const quietMs = quietUntil - now();
    if (quietMs > 0) throw new LockAuthorityChangingError("leases of before may last", quietMs);
    return { mode, sinceEpoch };
  }

  function announced(ms: number): Promise<void> | undefined {
    if (ms > wantedMs) wantedMs = ms;
    return ms === 0 || ms <= leftMs(announcement) ? undefined : announceUntilHeard(ms);
  }

  async function announceUntilHeard(ms: number): Promise<void> {
    for (let tries = 0; tries < MOST_ANNOUNCED; tries++) {
      // One that is under way may be of shorter leases, or of a reign that is over.
      await announcing?.catch(() => undefined);
      if (ms <= leftMs(announcement)) return;
      await announceOnce(ms);
      if (ms <= leftMs(announcement)) return;
    }
    throw new LockAuthorityUnavailableError("SQL takes too long to be told how long leases last");
  }

  function announceOnce(ms: number): Promise<void> {
    announcing ??= announce(Math.max(ms, wantedMs)).finally(() => {
      announcing = undefined;
    });
    return announcing;
  }

  async function announce(ms: number): Promise<void> {
    const asked = momentOf(clock);
    let answer: Head | undefined;
    try {
      answer = await heads.announce("redis", ms + trustMs);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      throw new LockAuthorityUnavailableError("SQL cannot be told how long leases last", error);
    }
    if (answer === undefined) {
      await look();
      throw new LockAuthorityChangingError("Redis decides no longer");
    }
    learn(answer, asked);
  }

  async function read(): Promise<void> {
    const asked = momentOf(clock);
    learn(await heads.read(), asked);
  }

  function look(): Promise<void> {
    if (looking !== undefined) {
      // What is under way was asked before.
      lookingNext ??= looking.then(() => {
        lookingNext = undefined;
        return look();
      });
      return lookingNext;
    }
    looking = read()
      .catch((err: unknown) => log.debug({ err }, "SQL does not say who decides about locks"))
      .finally(() => {
        looking = undefined;
      });
    return looking;
  }

  async function watch(): Promise<void> {
    const longestMs = Math.max(wantedMs, wantedBeforeMs);
    wantedBeforeMs = wantedMs;
    wantedMs = 0;
    const isShort = longestMs > 0 && longestMs + trustMs / 2 > leftMs(announcement);
    if (head.mode !== "redis" || !isShort) return look();
    // The answer says who decides, too.
    await announceOnce(longestMs).catch((err: unknown) => log.debug({ err }, "leases are not announced ahead"));
  }

  let cancel = () => {};
  function watchAgain(): void {
    cancel = timer(() => {
      if (isClosed) return;
      watchAgain();
      void watch();
    }, watchMs);
  }
  watchAgain();

  return {
    get head() {
      return head;
    },
    current,
    announced,
    look,
    close() {
      isClosed = true;
      cancel();
    },
  };
}
