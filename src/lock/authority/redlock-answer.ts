import { CLAIMED } from "./redlock-scripts.ts";

/** A version of what a register says: `rev` grows with each change of the grant that `token` names. */
export interface Version {
  readonly token: number;
  readonly rev: number;
  /** Names the attempt that wrote the token. One that failed on its way may have tried the same token. */
  readonly id: string;
  readonly text: string;
}

/** What one master said of a register. Times are lengths, since each master has a clock of its own. */
export interface Answer {
  readonly status: number;
  readonly nowMs: number;
  readonly epoch: number;
  /** The largest token it wrote for any register. */
  readonly floor: number;
  /** Its token is 0 where nothing was written. */
  readonly version: Version;
  /** For how long it blocks others yet; not positive when it is over. */
  readonly leftMs: number;
  readonly isEnded: boolean;
  readonly endedAgoMs: number;
  readonly wantedMs: number;
  readonly rival: string;
  readonly rivalMs: number;
  /** What the attempt meant that this order names; empty: it is not remembered. */
  readonly attempt: string;
}

export function answerOf(reply: readonly unknown[]): Answer {
  const number = (at: number) => Number(reply[at]);
  const text = (at: number) => String(reply[at]);
  return {
    ...{ status: number(0), nowMs: number(1), epoch: number(2), floor: number(3) },
    version: { token: number(4), rev: number(5), id: text(6), text: text(7) },
    ...{ leftMs: number(8), isEnded: number(9) === 1, endedAgoMs: number(10) },
    ...{ wantedMs: number(11), rival: text(12), rivalMs: number(13), attempt: text(14) },
  };
}

/** What one master did with a version it was to write. */
export interface Written {
  readonly votes: boolean;
  readonly written: boolean;
  readonly leftMs: number;
  readonly wantedMs: number;
  /** What it has now. */
  readonly token: number;
  readonly rev: number;
}

export function writtenOf(reply: readonly unknown[]): Written {
  const [votes, written, leftMs, wantedMs, token, rev] = reply.map(Number);
  return {
    ...{ votes: votes === 1, written: written === 1, leftMs: leftMs ?? 0, wantedMs: wantedMs ?? 0 },
    ...{ token: token ?? 0, rev: rev ?? 0 },
  };
}

export function isClaimed({ status }: Answer): boolean {
  return status === CLAIMED;
}
