import type { NoteAbsence } from "../../infra/absence.ts";
import type { Clock } from "../../infra/clock.ts";
import type { CopiesTruth } from "./copies-truth.ts";
import { COPIES_GONE_MS } from "./copy-store.ts";

/** Keeps those who write without Redis told that there may be copies, so that they mark what they change. */
export interface Announcement {
  close(): Promise<void>;
}

export interface AnnouncementOptions {
  readonly truth: Pick<CopiesTruth, "announce">;
  readonly clock: Pick<Clock, "now">;
  readonly noteAbsence: NoteAbsence;
}

/** Often enough that it never ends while copies are made. */
const EVERY_MS = 3_600_000;

/** No copy may be made before this resolves. */
export async function announceCopies({ truth, clock, noteAbsence }: AnnouncementOptions): Promise<Announcement> {
  const announce = () => truth.announce((clock.now() + COPIES_GONE_MS) * 1000);
  await announce();
  let last: Promise<void> | undefined;
  const timer = setInterval(() => {
    last = announce().catch(noteAbsence);
  }, EVERY_MS).unref();
  return {
    async close() {
      clearInterval(timer);
      await last;
    },
  };
}
