import { UnavailableError } from "../../infra/failure.ts";
import type { Archive } from "../archive/archive.ts";
import type { Journal } from "../journal/journal.ts";
import type { Queue } from "../queue/queue.ts";

export interface SequenceTiers {
  readonly archive: Pick<Archive, "lastSequence">;
  readonly journal: Pick<Journal, "segments">;
  readonly queue: Pick<Queue, "lastSequence"> | undefined;
}

/** The largest sequence of a producer that is held in any tier that answers; 0: none. */
export async function lastSequence({ archive, journal, queue }: SequenceTiers, producer: string): Promise<number> {
  const [archived, queued] = await Promise.all([
    orNone(archive.lastSequence(producer)),
    queue && orNone(queue.lastSequence(producer)),
  ]);
  const journaled = journal.segments().map(({ held }) => held.get(producer)?.at(-1)?.last ?? 0);
  return Math.max(archived ?? 0, queued ?? 0, ...journaled);
}

async function orNone(answer: Promise<number | undefined>): Promise<number | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof UnavailableError) return undefined;
    throw error;
  }
}
