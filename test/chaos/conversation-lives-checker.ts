import type { LivesHistory, Rest, Sight, Told } from "./conversation-lives-history.ts";
import {
  isOver,
  keyOf,
  type LifeContent,
  type LifeFault,
  type LifeReport,
  type Lives,
  replay,
} from "./conversation-lives-replay.ts";
import { type Sighting, sweep } from "./conversation-times.ts";

export interface LivesVerdict {
  readonly faults: Readonly<Partial<Record<LifeFault, number>>>;
  readonly examples: readonly string[];
  /** Reads that were not allowed to be behind. */
  readonly strictSights: number;
}

const MOST_EXAMPLES = 20;

/** Compares what was ordered, seen and told of conversations that come and go: one order of changes must explain it all. */
export function checkLives(history: LivesHistory): LivesVerdict {
  const faults: Partial<Record<LifeFault, number>> = {};
  const examples: string[] = [];
  const report: LifeReport = (fault, example) => {
    faults[fault] = (faults[fault] ?? 0) + 1;
    if (examples.length < MOST_EXAMPLES) examples.push(`${fault}: ${example}`);
  };
  const [first, ...others] = history.told;
  if (first === undefined) throw new Error("nobody told what was changed");
  for (const { by, changes } of others) checkSame(by, changes, first.changes, report);
  for (const { by, changes } of history.told) checkMessages(by, changes, history.deeds, report);
  const all = replay(history, first.changes, report);
  const isHealthy = ({ calledAt, answeredAt }: Sight) =>
    history.healthy.some(({ from, to }) => from <= calledAt && answeredAt <= to);
  const strict = new Set(history.sights.filter((sight) => sight.fromTruth || isHealthy(sight)));
  for (const [conversation, lives] of all) {
    const of = <T extends { readonly conversation: string }>(many: readonly T[]) =>
      many.filter((one) => one.conversation === conversation);
    const sights = of(history.sights);
    for (const sight of sights) {
      if (sight.presence === "live") checkSeen(sight.by, sight, lives.contents.get(sight.version), report);
    }
    checkTimes({ ...history, deeds: of(history.deeds), sights }, lives, strict, report);
    for (const rest of of(history.rests)) checkRest(rest, lives, report);
  }
  for (const { conversation, presence } of history.rests) {
    if (presence !== "never" && !all.has(conversation))
      report("end wrong", `${conversation}, of which nobody was told`);
  }
  return { faults, examples, strictSights: strict.size };
}

/** The changes of all conversations in one order, each once. */
function checkSame(by: string, told: readonly Told[], due: readonly Told[], report: LifeReport): void {
  const words = (change: Told | undefined) =>
    change === undefined ? "nothing" : JSON.stringify({ ...change, messages: undefined });
  for (let at = 0; at < Math.max(told.length, due.length); at++) {
    const [said, wanted] = [words(told[at]), words(due[at])];
    if (said === wanted) continue;
    report("watch wrong", `${by} told ${said} as change ${at} of ${due.length}, due was ${wanted}`);
    return;
  }
}

/** Messages come with the change that appended them, unless they were taken away before it was told. */
function checkMessages(by: string, told: readonly Told[], deeds: LivesHistory["deeds"], report: LifeReport): void {
  const appends = new Map(deeds.flatMap((deed) => (deed.answer ? [[keyOf(deed, deed.answer), deed.messages]] : [])));
  const takenAway = new Map<string, number>();
  for (const { conversation, turn, version } of told) {
    if (turn !== "updated" && turn !== "appended") takenAway.set(conversation, version);
  }
  for (const change of told) {
    const { conversation, turn, version, messages } = change;
    const due = appends.get(keyOf(change, change));
    if (turn !== "appended" || due === undefined || String(due) === String(messages)) continue;
    if (messages.length === 0 && (takenAway.get(conversation) ?? 0) > version) continue;
    report("watch wrong", `${by} told that ${conversation} at ${version} appended ${messages}, due were ${due}`);
  }
}

type Seen = Pick<Sight, "conversation" | "version" | "mark" | "messageCount">;

function checkSeen(by: string, seen: Seen, content: LifeContent | undefined, report: LifeReport): void {
  const words = `${by} saw ${seen.conversation} at ${seen.version}: ${seen.mark}, ${seen.messageCount} messages`;
  if (content === undefined) report("read torn", `${words}, which was never committed`);
  else if (!content.marks.includes(seen.mark) || content.messages.length !== seen.messageCount) {
    report("read torn", `${words}, due were ${content.marks}, ${content.messages.length} messages`);
  }
}

/** What was called after an answer is not behind it, deletions included. */
function checkTimes(
  { deeds, sights }: Pick<LivesHistory, "deeds" | "sights">,
  { gaps }: Lives,
  strict: ReadonlySet<Sight>,
  report: LifeReport,
): void {
  const sightings: Sighting[] = [];
  for (const { name, calledAt, answer } of deeds) {
    if (answer === undefined) continue;
    const { at: answeredAt, version } = answer;
    // An answer that was given to a retry may be of long before.
    sightings.push({ what: name, calledAt, answeredAt, low: version, high: version, rule: "none" });
  }
  for (const sight of sights) {
    const { by, conversation, presence, calledAt, answeredAt, version } = sight;
    const rule = strict.has(sight) ? "no less" : "none";
    const what = `${by} saw ${conversation} ${presence}`;
    if (presence === "live") {
      sightings.push({ what, calledAt, answeredAt, low: version, high: version, rule });
      continue;
    }
    const open = gaps.filter((gap) => gap.presence === presence && gap.since <= answeredAt).map(({ until }) => until);
    if (open.length === 0) report("read torn", `${what}, which it was not by then`);
    // It was not there up to the version before its next life. Nobody who saw it gone knows of a version.
    else sightings.push({ what, calledAt, answeredAt, low: Math.max(...open) - 1, high: 0, rule });
  }
  sweep(sightings, ({ what, low }, floor) => report("went back", `${what}: ${low} after ${floor}`));
}

function checkRest(rest: Rest, { contents, last, lastTurn }: Lives, report: LifeReport): void {
  const { conversation, presence, version, messages } = rest;
  const words = `${conversation} is ${presence} at ${version}`;
  if (isOver(lastTurn)) {
    if (presence !== lastTurn) report("end wrong", `${words}, and was ${lastTurn} at ${last}`);
    return;
  }
  if (presence !== "live" || version !== last) {
    report("end wrong", `${words}, and was ${lastTurn} at ${last}`);
    return;
  }
  const content = contents.get(version);
  checkSeen("the end", { ...rest, messageCount: messages.length }, content, report);
  if (String(content?.messages) !== String(messages)) {
    report("end wrong", `${words} with ${messages}, due were ${content?.messages}`);
  }
}
