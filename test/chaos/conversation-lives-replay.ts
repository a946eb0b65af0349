import type { Act, Deed, LivesHistory, Told, Turn } from "./conversation-lives-history.ts";

export type LifeFault =
  | "watch wrong"
  | "change lost"
  | "change foreign"
  | "update lost"
  | "deletion undone"
  | "life cut short"
  | "went back"
  | "read torn"
  | "end wrong";

export type LifeReport = (fault: LifeFault, example: string) => void;

/** What a version is. */
export interface LifeContent {
  /** Which of these marks it may bear: more than one where nobody knows who wrote it. */
  readonly marks: readonly string[];
  readonly messages: readonly string[];
}

/** For how long a conversation was not there. */
export interface Gap {
  readonly presence: "expired" | "deleted" | "never";
  /** It cannot have begun before. */
  readonly since: number;
  /** The version with which the next life began. */
  readonly until: number;
}

/** All lives of a conversation, as its changes tell. */
export interface Lives {
  readonly contents: Map<number, LifeContent>;
  readonly gaps: Gap[];
  /** The version of the last change. */
  last: number;
  lastTurn: Turn | undefined;
}

const ACTS: Readonly<Record<Turn, readonly Act[]>> = {
  created: ["write", "fork"],
  updated: ["write"],
  appended: ["append"],
  restored: ["restore"],
  deleted: ["delete"],
  expired: [],
};
const EMPTY: LifeContent = { marks: [], messages: [] };
export const isOver = (turn: Turn | undefined) => turn === undefined || turn === "deleted" || turn === "expired";

/** Goes through all changes in the order in which they were told, and says who made each, and what came of it. */
export function replay(history: LivesHistory, changes: readonly Told[], report: LifeReport): Map<string, Lives> {
  const all = new Map<string, Lives>();
  const livesOf = (conversation: string): Lives => {
    const found = all.get(conversation);
    if (found !== undefined) return found;
    const lives: Lives = {
      ...{ contents: new Map(), last: 0, lastTurn: undefined },
      gaps: [{ presence: "never", since: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY }],
    };
    all.set(conversation, lives);
    return lives;
  };
  const answered = new Map(history.deeds.flatMap((deed) => (deed.answer ? [[keyOf(deed, deed.answer), deed]] : [])));
  const unsure = new Set(history.deeds.filter((deed) => deed.answer === undefined && deed.unsure));
  const told = new Set<string>();
  for (const change of changes) {
    const { conversation, turn, version, previousVersion } = change;
    const words = `${conversation} ${turn} at ${version}`;
    if (turn === "unknown") {
      report("watch wrong", words);
      continue;
    }
    const lives = livesOf(conversation);
    const { last, lastTurn } = lives;
    const wasLive = !isOver(lastTurn);
    const due = turn === "created" ? 0 : last;
    if (previousVersion !== due) report("watch wrong", `${words} follows ${previousVersion}, and not ${due}`);
    if (version <= last) report("watch wrong", `${words} after ${last}`);
    if (wasLive === (turn === "created")) report("watch wrong", `${words} after ${lastTurn}`);
    const expected = wasLive ? last : 0;
    const fits = (deed: Deed) => deed.expected === undefined || deed.expected === expected;
    const known = answered.get(keyOf(change, change));
    const makers = known
      ? [known]
      : [...unsure].filter((deed) => deed.conversation === conversation && ACTS[turn].includes(deed.act) && fits(deed));
    if (known !== undefined) told.add(known.name);
    if (turn === "expired") {
      if (!history.brief.has(conversation)) report("life cut short", words);
    } else if (makers.length === 0) report("change foreign", words);
    if (known !== undefined) {
      if (!ACTS[turn].includes(known.act)) report("change foreign", `${words}: ${known.name}`);
      if (!fits(known)) report("update lost", `${known.name} expected ${known.expected} and replaced ${expected}`);
      const isLate = turn === "created" && lastTurn === "deleted" && known.expected !== 0;
      if (isLate) report("deletion undone", `${words} by ${known.name}`);
    }
    lives.last = version;
    lives.lastTurn = turn;
    const gap = lives.gaps.at(-1);
    if (turn === "deleted" || turn === "expired") {
      lives.gaps.push({
        presence: turn,
        since: known?.calledAt ?? Number.NEGATIVE_INFINITY,
        until: Number.POSITIVE_INFINITY,
      });
    } else {
      if (turn === "created" && gap) lives.gaps[lives.gaps.length - 1] = { ...gap, until: version };
      const before = turn === "created" ? EMPTY : (lives.contents.get(last) ?? EMPTY);
      lives.contents.set(version, contentAfter(change, before, makers, livesOf));
    }
  }
  for (const { name, conversation, answer } of history.deeds) {
    if (answer !== undefined && !told.has(name)) report("change lost", `${name}: ${conversation} at ${answer.version}`);
  }
  return all;
}

export const keyOf = ({ conversation }: { readonly conversation: string }, { version }: { readonly version: number }) =>
  `${version} ${conversation}`;

function contentAfter(
  { turn }: Told,
  before: LifeContent,
  makers: readonly Deed[],
  livesOf: (conversation: string) => Lives,
): LifeContent {
  const [maker] = makers;
  if (turn === "appended") return { ...before, messages: [...before.messages, ...(maker?.messages ?? [])] };
  if (maker?.earlier !== undefined) {
    const { conversation, version } = maker.earlier;
    return livesOf(conversation).contents.get(version) ?? EMPTY;
  }
  return { ...before, marks: makers.map(({ mark }) => mark) };
}
