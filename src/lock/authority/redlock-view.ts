import type { Grant, LockRecord } from "../record/grant.ts";
import type { Answer, Version } from "./redlock-answer.ts";

/** A version as some of those have it that answered. */
export interface Seen {
  readonly version: Version;
  /** How many have this version, or an older one of the same grant. */
  readonly count: number;
  /** Whether somebody has it in force and nobody knows of its end. */
  readonly isLive: boolean;
  /** How long it is in force yet, where that is longest; not positive: how long it is over. */
  readonly leftMs: number;
  readonly isEnded: boolean;
  /** Whether some of them do not know yet that it was ended. */
  readonly isEndUnknown: boolean;
}

/** What a version of a lock says. */
export interface Text {
  readonly grant: Grant;
  readonly streak: number;
}

export function textOf({ version }: Seen): Text {
  // Written by this very code, from a Text; masters only keep it.
  const text: Text = JSON.parse(version.text);
  return text;
}

/** Each grant that some of the answers know of, in its newest version. */
export function grantsSeen(answers: readonly Answer[]): readonly Seen[] {
  const byGrant = new Map<string, Answer[]>();
  for (const answer of answers) {
    const { token, id } = answer.version;
    if (token === 0) continue;
    const key = `${token} ${id}`;
    byGrant.set(key, [...(byGrant.get(key) ?? []), answer]);
  }
  return Array.from(byGrant.values(), (those) => {
    const newest = those.reduce((a, b) => (b.version.rev > a.version.rev ? b : a));
    const isEnded = those.some(({ isEnded }) => isEnded);
    const leftMs = Math.max(...those.map((answer) => answer.leftMs));
    const isEndUnknown = isEnded && !those.every((answer) => answer.isEnded);
    const isLive = !isEnded && leftMs > 0;
    return { version: newest.version, count: those.length, isLive, leftMs, isEnded, isEndUnknown };
  });
}

/** Who has the lock, as far as the answers tell: the grant that most have in force; of two, the later. */
export function holderSeen(answers: readonly Answer[]): Seen | undefined {
  return best(
    grantsSeen(answers).filter(({ isLive }) => isLive),
    (a, b) => a.count - b.count || a.version.token - b.version.token,
  );
}

export function grantSeen(answers: readonly Answer[], token: number): Seen | undefined {
  const those = grantsSeen(answers).filter(({ version }) => version.token === token);
  return best(those, (a, b) => a.count - b.count);
}

/** The newest grant, in force or not. */
export function newestSeen(answers: readonly Answer[]): Seen | undefined {
  return best(grantsSeen(answers), (a, b) => a.version.token - b.version.token || a.count - b.count);
}

/** The largest token that may have been granted for this register. */
export function lastToken(answers: readonly Answer[]): number {
  return Math.max(0, ...answers.map(({ version }) => version.token));
}

/** The largest token, and the largest epoch, that these masters have to be told apart from. */
export function tokenBase(answers: readonly Answer[]): { readonly token: number; readonly epoch: number } {
  // A register that was forgotten, or never written, may have had any token up to the floor.
  const tokens = answers.map(({ version, floor }) => (version.token === 0 ? floor : version.token));
  return { token: Math.max(0, ...tokens), epoch: Math.max(0, ...answers.map(({ epoch }) => epoch)) };
}

/** What the masters together call now: their clocks may be apart. */
export function nowOf(answers: readonly Answer[]): number {
  const times = answers.map(({ nowMs }) => nowMs).sort((a, b) => a - b);
  return times[times.length >> 1] ?? 0;
}

/** The record for the rules: its times moved so that what is left of them is as the masters have it. */
export function recordOf(seen: Seen, answers: readonly Answer[], nowMs: number): LockRecord {
  const { grant, streak } = textOf(seen);
  const rival = answers.reduce((a, b) => (b.rivalMs > a.rivalMs ? b : a));
  const of = answers.filter(({ version }) => version.token === grant.token && version.id === seen.version.id);
  const endedAgoMs = Math.min(...of.filter(({ isEnded }) => isEnded).map((one) => one.endedAgoMs));
  return {
    grant: {
      ...grant,
      expireMs: nowMs + seen.leftMs,
      endMs: Number.isFinite(endedAgoMs) ? nowMs - endedAgoMs : grant.endMs,
    },
    streak,
    wantedUntilMs: nowMs + Math.max(...answers.map(({ wantedMs }) => wantedMs)),
    rival: rival.rival,
    rivalUntilMs: nowMs + rival.rivalMs,
  };
}

function best<T>(all: readonly T[], compare: (a: T, b: T) => number): T | undefined {
  return all.length === 0 ? undefined : all.reduce((a, b) => (compare(b, a) > 0 ? b : a));
}
