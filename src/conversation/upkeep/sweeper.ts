import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { type Pace, type Sweeper, startSweeper } from "../../infra/sweeper.ts";
import type { Remains } from "./remains.ts";
import type { Removal } from "./removal.ts";

export interface ConversationSweeperParts {
  readonly remains: Remains;
  readonly removal: Removal;
  /** Removes one portion of the changes that are kept no longer. Whether there may be another. */
  readonly removeChanges: (untilUs: number) => Promise<boolean>;
  readonly changesKeptMs: number;
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** There are few counts, and looking through them costs more than having some that are zero. */
const SWEEPS_PER_COUNTS = 60;

/** Removes what is over of conversations. */
export function startConversationSweeper(parts: ConversationSweeperParts): Sweeper {
  const { remains, removal, removeChanges, clock, log } = parts;
  let sweeps = 0;

  async function removeOver({ createRest }: Pace): Promise<void> {
    const { conversations, tombstones } = await removal({
      ...{ includes: () => true, limit: Number.POSITIVE_INFINITY, dryRun: false, goOn: createRest() },
    });
    if (conversations > 0) log.debug({ conversations, tombstones }, "removed conversations that had expired");
  }

  const tasks: readonly ((pace: Pace) => Promise<void>)[] = [
    removeOver,
    ({ portions }) => portions(() => remains.removeMessages(clock.now() * 1000)),
    ({ portions }) => portions(() => remains.removeAnswers(clock.now() * 1000)),
    ({ portions }) => portions(() => removeChanges((clock.now() - parts.changesKeptMs) * 1000)),
    async ({ createRest }) => {
      if (sweeps % SWEEPS_PER_COUNTS !== 0) return;
      const rest = createRest();
      for await (const _ of remains.removeEmptyCounts()) if (!(await rest())) return;
    },
  ];

  async function sweepAll(pace: Pace): Promise<void> {
    for (const task of tasks) {
      if (!pace.goesOn) break;
      try {
        await task(pace);
      } catch (err) {
        log.warn({ err }, "what is over of conversations is not removed yet");
        // What one of them cannot remove does not keep the others, unless nothing can be removed.
        if (err instanceof UnavailableError) break;
      }
    }
    sweeps++;
  }

  return startSweeper({ intervalMs: parts.intervalMs, sweepAll });
}
