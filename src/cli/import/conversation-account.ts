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
  /** It was changed in the source since, but the messages there are not its first ones: it was left alone. */
  | "apart there"
  /** It was deleted there: it was not brought back. */
  | "deleted there"
  /** It has expired there: it was not brought back. */
  | "expired there"
  /** It expired, or was deleted, in the source before it could be brought. */
  | "gone from the source"
  /** The same stands in the source once more: it was brought once. */
  | "repeated"
  /** It is a copy that the server itself keeps. */
  | "own";

/** In the order of the account: what it is called, and whether the user ought to know which ones they were. The first two are always told. */
const FATES: readonly { readonly fate: Fate; readonly name: string; readonly isListed?: boolean }[] = [
  { fate: "imported", name: "imported" },
  { fate: "already there", name: "already there" },
  { fate: "updated", name: "updated" },
  { fate: "newer there", name: "newer there, left alone", isListed: true },
  { fate: "older there", name: "newer in the source, left alone (--update brings them)", isListed: true },
  {
    fate: "apart there",
    name: "newer in the source, but with other messages than are there, left alone",
    isListed: true,
  },
  { fate: "deleted there", name: "deleted there, left alone", isListed: true },
  { fate: "expired there", name: "expired there, left alone", isListed: true },
  { fate: "gone from the source", name: "gone from the source meanwhile", isListed: true },
  { fate: "repeated", name: "in the source once more, the same" },
  { fate: "own", name: "the server's own copies, passed over" },
];

/** What a rehearsal says of what it would have done. */
const REHEARSED: ReadonlyMap<Fate, string> = new Map<Fate, string>([
  ["imported", "would be imported"],
  ["updated", "would be updated"],
]);

const SHOWN = 10;

/** What is done: with "reading" nothing is known of a server. */
export type Scope = "import" | "rehearsal" | "reading";

export interface ConversationAccount {
  /** How many were read, the server's own not counted. */
  readonly read: number;
  readonly refused: number;
  /** `where`: in the source. */
  add(fate: Fate, where: string): void;
  /** What is fit for being sent, as far as can be told without a server. */
  sendable(): void;
  refuse(place: Place, reason: string, message: string): void;
  progress(total: number | undefined): string;
  lines(scope: Scope): string[];
  close(): void;
}

export interface ConversationAccountOptions {
  /** The file that gets one JSON line for each refusal. */
  readonly rejects: string | undefined;
  /** Told what becomes of each that is not simply brought, where the user wants to know. */
  readonly onOddity?: ((line: string) => void) | undefined;
}

export function createConversationAccount({ rejects, onOddity }: ConversationAccountOptions): ConversationAccount {
  const refusals = createRefusals(rejects);
  const counts = new Map<Fate, number>();
  const first = new Map<Fate, string[]>();
  let sendable = 0;
  const count = (fate: Fate) => counts.get(fate) ?? 0;
  const read = () => [...counts.values()].reduce((sum, n) => sum + n, sendable + refusals.count) - count("own");

  function linesOf({ fate, name }: (typeof FATES)[number], scope: Scope): string[] {
    const shown = first.get(fate) ?? [];
    const more = count(fate) - shown.length;
    return [
      `${(scope === "rehearsal" && REHEARSED.get(fate)) || name}: ${count(fate)}`,
      ...shown.map((where) => `  ${where}`),
      ...(shown.length > 0 && more > 0 ? [`  and ${more} more; --verbose tells of each`] : []),
    ];
  }

  return {
    get read() {
      return read();
    },
    get refused() {
      return refusals.count;
    },
    add(fate, where) {
      counts.set(fate, count(fate) + 1);
      const { name, isListed = false } = FATES.find((one) => one.fate === fate) ?? { name: fate };
      if (!isListed) return;
      onOddity?.(`${where}: ${name}`);
      const shown = first.get(fate) ?? [];
      if (shown.length < SHOWN) first.set(fate, [...shown, where]);
    },
    sendable: () => void sendable++,
    refuse(place, reason, message) {
      onOddity?.(`${place.where}: refused: ${reason}: ${message}`);
      refusals.add({ where: place.where, reason, message, details: place.raw() });
    },
    progress(total) {
      const of = total === undefined ? "" : ` of ${total}`;
      const there = `already there ${count("already there")}, refused ${refusals.count}`;
      return `read ${read()}${of}, imported ${count("imported")}, ${there}`;
    },
    lines(scope) {
      const isReading = scope === "reading";
      const told = FATES.filter(({ fate }, at) => (at < 2 && !isReading) || count(fate) > 0);
      return [
        `read: ${read()}`,
        ...(isReading ? [`would be sent: ${sendable}`] : []),
        ...told.flatMap((one) => linesOf(one, scope)),
        `refused: ${refusals.count}`,
        ...refusals.lines(),
      ];
    },
    close: () => refusals.close(),
  };
}
