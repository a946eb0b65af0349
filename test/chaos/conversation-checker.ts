import { checkCommits } from "./conversation-commits.ts";
import type { Commit, History, Listing, Write } from "./conversation-history.ts";
import { checkTimes } from "./conversation-times.ts";

export type Fault =
  | "message lost"
  | "message doubled"
  | "message misplaced"
  | "message foreign"
  | "order not kept"
  | "update lost"
  | "write lost"
  | "write foreign"
  | "version went back"
  | "read torn"
  | "watch wrong";

export interface Verdict {
  readonly faults: Readonly<Partial<Record<Fault, number>>>;
  readonly examples: readonly string[];
  /** Reads that were not allowed to be behind. */
  readonly strictReads: number;
  /** Writes without an answer that were committed. */
  readonly unansweredCommits: number;
}

export type Report = (fault: Fault, example: string) => void;

const MOST_EXAMPLES = 20;

/** Compares what writers, readers and watchers were told with each other: one order of versions must explain it all. */
export function checkHistory(history: History): Verdict {
  const faults: Partial<Record<Fault, number>> = {};
  const examples: string[] = [];
  const report: Report = (fault, example) => {
    faults[fault] = (faults[fault] ?? 0) + 1;
    if (examples.length < MOST_EXAMPLES) examples.push(`${fault}: ${example}`);
  };
  const isHealthy = ({ calledAt, answeredAt }: { readonly calledAt: number; readonly answeredAt: number }) =>
    history.healthy.some(({ from, to }) => from <= calledAt && answeredAt <= to);
  const strict = new Set(history.reads.filter((read) => read.fromTruth || isHealthy(read)));
  let unansweredCommits = 0;
  for (const conversation of new Set(history.writes.map((write) => write.conversation))) {
    const of = <T extends { readonly conversation: string }>(all: readonly T[]) =>
      all.filter((one) => one.conversation === conversation);
    const writes = of(history.writes);
    const reads = of(history.reads);
    for (const listing of of(history.listings)) checkListing(writes, listing, report);
    checkTimes(writes, reads, strict, report);
    checkUpdates(writes, report);
    const [first, ...others] = history.commits.map(({ by, changes }) => ({ by, changes: of(changes) }));
    if (first === undefined) throw new Error("nobody told what was committed");
    for (const { by, changes } of [...others, ...history.told]) checkTold(by, of(changes), first.changes, report);
    unansweredCommits += checkCommits(first.changes, writes, reads, report);
  }
  return { faults, examples, strictReads: strict.size, unansweredCommits };
}

/** Every acknowledged message once, where it was said to be, and nothing that nobody sent. */
function checkListing(writes: readonly Write[], { by, messages }: Listing, report: Report): void {
  const places = new Map<string, number>();
  for (const [at, { id, position }] of messages.entries()) {
    if (places.has(id)) report("message doubled", `${by}: ${id} at ${places.get(id)} and ${position}`);
    places.set(id, position);
    if (position !== at + 1) report("message misplaced", `${by}: ${id} is number ${at + 1}, and says ${position}`);
  }
  const sent = new Set(writes.flatMap((write) => write.messages));
  for (const id of places.keys()) if (!sent.has(id)) report("message foreign", `${by}: ${id}`);
  for (const { messages: ids, answer } of writes) {
    for (const [at, position] of (answer?.positions ?? []).entries()) {
      const id = ids[at] ?? "";
      const found = places.get(id);
      if (found === undefined) report("message lost", `${by}: ${id}, acknowledged at ${position}`);
      else if (found !== position) report("message misplaced", `${by}: ${id} at ${found}, acknowledged at ${position}`);
    }
  }
}

/** No two updates of one version have succeeded, and no two writes have made one version. */
function checkUpdates(writes: readonly Write[], report: Report): void {
  const successors = new Map<number, string>();
  const makers = new Map<number, string>();
  for (const { name, messages, expected, answer } of writes) {
    if (answer === undefined || answer.duplicate) continue;
    const { version } = answer;
    const other = makers.get(version);
    if (other !== undefined) report("update lost", `${name} and ${other} both made version ${version}`);
    makers.set(version, name);
    if (messages.length > 0) continue;
    const rival = successors.get(expected);
    if (rival !== undefined) report("update lost", `${name} and ${rival} both replaced version ${expected}`);
    successors.set(expected, name);
    if (version <= expected) report("version went back", `${name}: ${version} replaced ${expected}`);
  }
}

/** All that was committed, once and in order. */
function checkTold(by: string, told: readonly Commit[], commits: readonly Commit[], report: Report): void {
  const words = ({ version, previousVersion, messages }: Commit) => `${previousVersion} > ${version} ${messages}`;
  for (let at = 0; at < Math.max(told.length, commits.length); at++) {
    const [said, due] = [told[at], commits[at]].map((commit) => (commit === undefined ? "nothing" : words(commit)));
    if (said === due) continue;
    report("watch wrong", `${by} told ${said} as change ${at} of ${commits.length}, due was ${due}`);
    return;
  }
}
