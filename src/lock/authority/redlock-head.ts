import type { Log } from "../../infra/log.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import type { Head, Heads } from "./head.ts";

export interface RedlockHeadOptions {
  readonly heads: Heads;
  readonly log: Log;
  readonly monotonic: () => number;
  readonly timer?: Timer;
}

/** What SQL says of this authority, as this instance knows it. */
export interface RedlockHead {
  /** The epoch below which nothing is granted. Rejects while another authority decides, or its leases may last. */
  epoch(): Promise<number>;
  /** To be waited for before a lease of this length is granted. */
  allow(ttlMs: number): Promise<void>;
  close(): void;
}

/** It is read again this often. */
const READ_AGAIN_MS = 3_000;

/**
 * SQL is asked once before the first grant, and whenever a lease is longer than any before: who else has to wait for the longest
 * one learns it there. While SQL is away, all else goes on; that another authority decides is learnt when it is back.
 */
export function createRedlockHead({ heads, log, monotonic, timer = systemTimer }: RedlockHeadOptions): RedlockHead {
  let head: Head | undefined;
  let quietUntil = 0;
  let reading: Promise<Head> | undefined;
  let cancel = () => {};
  let closed = false;

  function read(): Promise<Head> {
    reading ??= heads
      .read()
      .then((read) => {
        head = read;
        quietUntil = monotonic() + read.quietMs;
        return read;
      })
      .finally(() => {
        reading = undefined;
        cancel();
        if (!closed) cancel = timer(readAgain, READ_AGAIN_MS);
      });
    return reading;
  }

  function readAgain(): void {
    read().catch((error: unknown) => log.debug({ err: error }, "cannot read who decides about locks; trying on"));
  }

  async function current(): Promise<Head> {
    const known = head ?? (await unavailable(read));
    if (known.mode !== "redlock") {
      throw new LockAuthorityChangingError(`${known.mode || "nobody"} decides now, not redlock`);
    }
    const quietMs = quietUntil - monotonic();
    if (quietMs > 0) throw new LockAuthorityChangingError("leases of before may last", quietMs);
    return known;
  }

  return {
    epoch: async () => (await current()).sinceEpoch,
    async allow(ttlMs) {
      const known = await current();
      if (ttlMs <= known.longestMs) return;
      if (!(await unavailable(() => heads.allowLeases("redlock", ttlMs)))) {
        readAgain();
        throw new LockAuthorityChangingError("redlock no longer decides");
      }
      if (head === known) head = { ...known, longestMs: ttlMs };
    },
    close() {
      closed = true;
      cancel();
    },
  };
}

async function unavailable<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw new LockAuthorityUnavailableError("SQL does not say who decides, or for how long leases may last", error);
  }
}
