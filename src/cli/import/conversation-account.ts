import type { Place } from "./conversation-source.ts";
import { createRefusals } from "./refusals.ts";

/** What became of a document. */
export type Fate =
  | "imported"
  /** It had been imported, and has been changed in the source since: that was brought, too. */
  | "updated"
  /** The same is there. */
  | "already there"
  /** Another one is there, which was changed after this one: it was left alone. */
  | "newer there"
  /** Another one is there, which was changed before this one: it was left alone. */
  | "older there"
  /** It was deleted there: it was not brought back. */
  | "deleted there"
  /** It has expired there: it was not brought back. */
  | "expired there"
  /** It expired, or was deleted, in the source before it could be brought. */
  | "gone from the source"
  /** It is a copy that the server itself keeps. */
  | "own";

/** In the order of the account. The first two are always told. */
const FATES: readonly [Fate, string][] = [
  ["imported", "imported"],
  ["already there", "already there"],
  ["updated", "updated"],
  ["newer there", "newer there, left alone"],
  ["older there", "newer in the source, left alone (--update brings them)"],
  ["deleted there", "deleted there, left alone"],
  ["expired there", "expired there, left alone"],
  ["gone from the source", "gone from the source meanwhile"],
  ["own", "the server's own copies, passed over"],
];

export interface ConversationAccount {
  /** How many were read, the server's own not counted. */
  readonly read: number;
  readonly refused: number;
  add(fate: Fate): void;
  /** What was seen to be fit for being sent, by a rehearsal. */
  rehearsed(): void;
  refuse(place: Place, reason: string, message: string): void;
  progress(total: number | undefined): string;
  lines(isDryRun: boolean): string[];
  close(): void;
}

/** `rejects`: the file that gets one JSON line for each refusal. */
export function createConversationAccount(rejects: string | undefined): ConversationAccount {
  const refusals = createRefusals(rejects);
  const counts = new Map<Fate, number>();
  let sendable = 0;
  const count = (fate: Fate) => counts.get(fate) ?? 0;
  const read = () => [...counts.values()].reduce((sum, n) => sum + n, sendable + refusals.count) - count("own");
  return {
    get read() {
      return read();
    },
    get refused() {
      return refusals.count;
    },
    add: (fate) => void counts.set(fate, count(fate) + 1),
    rehearsed: () => void sendable++,
    refuse: (place, reason, message) => refusals.add({ where: place.where, reason, message, details: place.raw() }),
    progress(total) {
      const of = total === undefined ? "" : ` of ${total}`;
      const there = `already there ${count("already there")}, refused ${refusals.count}`;
      return `read ${read()}${of}, imported ${count("imported")}, ${there}`;
    },
    lines(isDryRun) {
      const told = FATES.filter(([fate], at) => (at < 2 && !isDryRun) || count(fate) > 0);
      return [
        `read: ${read()}`,
        ...(isDryRun ? [`would be sent: ${sendable}`] : []),
        ...told.map(([fate, name]) => `${name}: ${count(fate)}`),
        `refused: ${refusals.count}`,
        ...refusals.lines(),
      ];
    },
    close: () => refusals.close(),
  };
}
