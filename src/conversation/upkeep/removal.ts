import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { ConversationKey } from "../record/conversation.ts";
import type { Expired, Remains } from "./remains.ts";

/** So many are removed in one commit: writers wait no longer than that. */
const PORTION = 100;
/** Large states are fewer at a time. */
const PORTION_BYTES = 16 * 1024 * 1024;

export interface RemovalOrder {
  /** Whether what is in this collection may be removed. */
  readonly includes: (collection: string) => boolean;
  /** How many conversations and tombstones at most. */
  readonly limit: number;
  /** Nothing is removed; what would be is counted and named. */
  readonly dryRun: boolean;
  /** Asked before each portion, and after each look at what is not included. */
  readonly goOn: () => boolean | Promise<boolean>;
  /** Told of each conversation that is removed. */
  readonly removed?: (key: ConversationKey) => void;
  /** Told that Redis could not be told of some of them. */
  readonly degraded?: () => void;
}

export interface Removed {
  readonly conversations: number;
  readonly messages: number;
  readonly tombstones: number;
  /** Whether the limit, or who was asked, ended it while there was more. */
  readonly more: boolean;
}

/** Removes what has expired, so that its watchers are told, then tombstones that have been kept long enough. */
export type Removal = (order: RemovalOrder) => Promise<Removed>;

export interface RemovalParts {
  readonly remains: Remains;
  readonly ledger: Pick<Ledger, "carryOut">;
  readonly clock: Clock;
}

export function createRemoval({ remains, ledger, clock }: RemovalParts): Removal {
  async function expire(
    expired: readonly Expired[],
    failures: unknown[],
    degraded: RemovalOrder["degraded"],
  ): Promise<readonly Expired[]> {
    const outcomes = await Promise.allSettled(
      expired.map(({ collection, id }) => ledger.carryOut({ kind: "expire", key: { collection, id }, requestId: "" })),
    );
    for (const outcome of outcomes) {
      if (outcome.status === "fulfilled") continue;
      if (outcome.reason instanceof UnavailableError) throw outcome.reason;
      failures.push(outcome.reason);
    }
    if (outcomes.some((outcome) => outcome.status === "fulfilled" && outcome.value.degraded === true)) degraded?.();
    // Another instance may have been faster, or a writer has begun the conversation anew.
    return expired.filter((_, at) => {
      const outcome = outcomes[at];
      return outcome?.status === "fulfilled" && outcome.value.kind === "done";
    });
  }

  return async ({ includes, limit, dryRun, goOn, removed, degraded }) => {
    const nowUs = clock.now() * 1000;
    const counts = { conversations: 0, messages: 0, tombstones: 0 };
    /** One that cannot be removed does not keep the others. */
    const failures: unknown[] = [];
    let left = limit;

    /** Whether all of them were taken. */
    async function takeAll<T extends ConversationKey & { readonly stateBytes?: number }>(
      pages: AsyncIterable<readonly T[]>,
      take: (portion: readonly T[]) => Promise<void>,
    ): Promise<boolean> {
      for await (const page of pages) {
        const included = page.filter(({ collection }) => includes(collection));
        if (included.length === 0 && !(await goOn())) return false;
        for (let at = 0; at < included.length; ) {
          if (left === 0 || !(await goOn())) return false;
          const portion = portionOf(included.slice(at, at + Math.min(PORTION, left)));
          left -= portion.length;
          at += portion.length;
          await take(portion);
        }
        // What SQLite reads, it reads within this turn.
        await new Promise(setImmediate);
      }
      return true;
    }

    const wereExpired = await takeAll(remains.expired(nowUs), async (portion) => {
      const gone = dryRun ? portion : await expire(portion, failures, degraded);
      counts.conversations += gone.length;
      for (const { messageCount } of gone) counts.messages += messageCount;
      if (removed !== undefined) for (const { collection, id } of gone) removed({ collection, id });
    });
    const wereOutlived =
      wereExpired &&
      (await takeAll(remains.outlived(nowUs), async (portion) => {
        counts.tombstones += dryRun ? portion.length : await remains.removeTombstones(portion, nowUs);
      }));
    if (failures.length > 0) throw new AggregateError(failures, "expired conversations could not be removed");
    return { ...counts, more: !wereOutlived };
  };
}

/** The first of them, one at least. */
function portionOf<T extends { readonly stateBytes?: number }>(some: readonly T[]): readonly T[] {
  let bytes = 0;
  const end = some.findIndex(({ stateBytes = 0 }, at) => {
    bytes += stateBytes;
    return at > 0 && bytes > PORTION_BYTES;
  });
  return end === -1 ? some : some.slice(0, end);
}
