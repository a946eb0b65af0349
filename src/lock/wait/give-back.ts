import type { Log } from "../../infra/log.ts";
import type { Authority, Lease } from "../authority/authority.ts";
import type { TakeOrder } from "../record/decide.ts";

export interface GiveBackParts {
  readonly authority: Pick<Authority, "release">;
  readonly log: Log;
}

/**
 * Ends a lease that was granted to somebody who had gone by then. Only if it was made for that order: what was given to a retry may
 * be in use. Never rejects.
 */
export async function giveBack(
  { authority, log }: GiveBackParts,
  { name, streamId }: Pick<TakeOrder, "name" | "streamId">,
  { grant }: Lease,
): Promise<void> {
  if (grant.streamId !== streamId) return;
  try {
    await authority.release({ name, token: grant.token, streamId, end: "released", undo: true });
  } catch (err) {
    log.warn({ err, lock: name }, "could not give a lock back; its lease has to run out");
  }
}
