import { UnavailableError } from "../../infra/failure.ts";
import type { Keepers } from "../notice.ts";
import type { Keeping } from "./keeping.ts";

/** The grants that this instance keeps by streams. */
export interface Keepings extends Keepers {
  readonly size: number;
  readonly isDraining: boolean;
  add(keeping: Keeping): void;
  /** The stream of it is over. */
  remove(keeping: Keeping, andRelease: boolean): void;
  /** Hands all of them over, and keeps none any more. Resolves when their streams have been told, or after `graceMs`. */
  handOver(graceMs: number): Promise<void>;
  /** Waits for releases that are on their way. */
  close(): Promise<void>;
}

/** Checked at a time when messages may have been lost. */
const CHECKS_AT_A_TIME = 50;
const CHECK_PAUSE_MS = 20;

export function createKeepings(): Keepings {
  const byName = new Map<string, Set<Keeping>>();
  const releasing = new Set<Promise<void>>();
  let size = 0;
  let isDraining = false;
  let onEmpty: (() => void) | undefined;

  function all(): Keeping[] {
    return [...byName.values()].flatMap((keepings) => [...keepings]);
  }

  async function checkSlowly(keepings: readonly Keeping[]): Promise<void> {
    for (const [at, keeping] of keepings.entries()) {
      keeping.check();
      if (at % CHECKS_AT_A_TIME === CHECKS_AT_A_TIME - 1) {
        await new Promise<void>((resolve) => setTimeout(resolve, CHECK_PAUSE_MS).unref());
      }
    }
  }

  return {
    get size() {
      return size;
    },
    get isDraining() {
      return isDraining;
    },
    add(keeping) {
      const { name } = keeping;
      const keepings = byName.get(name) ?? new Set();
      keepings.add(keeping);
      byName.set(name, keepings);
      size++;
    },
    remove(keeping, andRelease) {
      const { name } = keeping;
      const keepings = byName.get(name);
      if (!keepings?.delete(keeping)) return;
      if (keepings.size === 0) byName.delete(name);
      size--;
      const release = keeping.stop(andRelease).finally(() => releasing.delete(release));
      releasing.add(release);
      if (size === 0) onEmpty?.();
    },
    check(name) {
      const keepings = byName.get(name);
      if (keepings !== undefined) for (const keeping of keepings) keeping.check();
    },
    checkAll() {
      void checkSlowly(all());
    },
    async handOver(graceMs) {
      isDraining = true;
      await within(graceMs, Promise.all(all().map((keeping) => keeping.handOver())));
      if (size === 0) return;
      await within(
        HANDOVER_SENT_MS,
        new Promise<void>((resolve) => {
          onEmpty = resolve;
        }),
      );
    },
    async close() {
      await within(RELEASED_MS, Promise.all(releasing));
    },
  };
}

/** Readers that do not read are not waited for. */
const HANDOVER_SENT_MS = 500;
const RELEASED_MS = 1_000;

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work, over]);
  clearTimeout(timer);
}

export function drainingFailure(): UnavailableError {
  return new UnavailableError("SERVER_DRAINING", "this instance is shutting down; go on with another");
}
