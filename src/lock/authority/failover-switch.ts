import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import type { FallbackHeads } from "./head.ts";
import type { Reigns } from "./reigns.ts";

/** Counted in checks, not in time: a process that was stopped has seen nothing of the time meanwhile. */
export interface FailoverPace {
  /** From the end of one check to the next one. */
  readonly checkMs: number;
  /** After so many checks in a row that failed Redis is taken as away. */
  readonly unwellChecks: number;
  /** After so many that succeeded it is taken as back. */
  readonly wellChecks: number;
  /** After so many Redis decides again also while Postgres has leases, which are waited out. */
  readonly patientChecks: number;
}

export interface FailoverSwitchOptions {
  /** Whether this instance reaches Redis now. Never rejects. */
  readonly isRedisWell: () => Promise<boolean>;
  readonly fallback: FallbackHeads;
  readonly reigns: Reigns;
  readonly log: Log;
  readonly timer?: Timer;
  readonly pace?: Partial<FailoverPace>;
}

/**
 * Postgres takes over when Redis has been away for this share of the time in which then nobody may grant: a moment without Redis must not
 * cost an hour without locks because somebody has one for an hour.
 */
const WORTH = 0.1;

const PACE: FailoverPace = { checkMs: 1_000, unwellChecks: 3, wellChecks: 30, patientChecks: 600 };

/**
 * Makes Postgres decide when this instance does not reach Redis, and Redis again when all instances do. Any one that does not
 * suffices for the first, and is waited for with the second: so the one that is cut off does not make it go to and fro.
 */
export interface FailoverSwitch {
  close(): Promise<void>;
}

export function startFailoverSwitch(options: FailoverSwitchOptions): FailoverSwitch {
  const { isRedisWell, fallback, reigns, log, timer = systemTimer } = options;
  const { checkMs, unwellChecks, wellChecks, patientChecks } = { ...PACE, ...options.pace };
  let well = 0;
  let unwell = 0;
  let complains = false;
  let isClosed = false;
  let cancel = () => {};
  let checking: Promise<void> | undefined;

  async function check(): Promise<void> {
    if (await isRedisWell()) {
      well++;
      unwell = 0;
    } else {
      well = 0;
      unwell++;
    }
    if (isClosed) return;
    if (unwell >= unwellChecks) await sayUnwell();
    else if (well >= wellChecks) await sayWell();
  }

  async function sayUnwell(): Promise<void> {
    complains = true;
    await fallback.complain();
    const { mode, busyMs } = reigns.head;
    if (mode !== "redis" || unwell * checkMs < WORTH * busyMs) return;
    log.warn({ checks: unwell }, "this instance does not reach Redis: Postgres is to decide about locks");
    await fallback.takeOver("redis");
    await reigns.look();
  }

  async function sayWell(): Promise<void> {
    await withdraw();
    if (reigns.head.mode !== "postgres") return;
    await fallback.giveBack("redis", well >= patientChecks);
    await reigns.look();
  }

  async function withdraw(): Promise<void> {
    if (!complains) return;
    await fallback.withdraw();
    complains = false;
  }

  function note(err: unknown): void {
    if (err instanceof UnavailableError) log.debug({ err }, "SQL is away: nobody can take over from Redis");
    else log.error({ err }, "who decides about locks could not be looked after");
  }

  function checkAgain(): void {
    if (isClosed) return;
    cancel = timer(() => {
      checking = check().catch(note).finally(checkAgain);
    }, checkMs);
  }
  checkAgain();

  return {
    async close() {
      isClosed = true;
      cancel();
      await checking;
      // Otherwise the others wait until it lapses.
      await withdraw().catch(note);
    },
  };
}
