/** A write that was called, and what became of it. Times are those of one clock, in milliseconds. */
export interface Write {
  readonly name: string;
  readonly conversation: string;
  /** The ids of the messages to append; none: the state is written. */
  readonly messages: readonly string[];
  /** For the state: the version it must follow, and what is written. */
  readonly expected: number;
  readonly mark: string;
  readonly calledAt: number;
  /** Undefined: nobody knows whether it was committed. */
  readonly answer: WriteAnswer | undefined;
}

export interface WriteAnswer {
  readonly at: number;
  readonly version: number;
  /** Of its messages. */
  readonly positions: readonly number[];
  /** Whether it was there already, so that the version may be that of another write. */
  readonly duplicate: boolean;
}

/** A version of a conversation as somebody saw it. */
export interface Read {
  readonly by: string;
  readonly conversation: string;
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly version: number;
  readonly mark: string;
  /** How often the state has been written, as the state says. */
  readonly writes: number;
  readonly messageCount: number;
  /** It came from the truth, which is never behind. Others may be while the system is not healthy. */
  readonly fromTruth: boolean;
}

/** A change as a watch tells it. */
export interface Commit {
  readonly conversation: string;
  readonly version: number;
  readonly previousVersion: number;
  /** The ids of the messages that it appended. */
  readonly messages: readonly string[];
}

export interface Listing {
  readonly by: string;
  readonly conversation: string;
  readonly messages: readonly { readonly id: string; readonly position: number }[];
}

export interface Span {
  readonly from: number;
  readonly to: number;
}

export interface History {
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
  /** What was committed, as watches tell from the creation of each conversation on, in the end. */
  readonly commits: readonly { readonly by: string; readonly changes: readonly Commit[] }[];
  /** What watches told all the while. */
  readonly told: readonly { readonly by: string; readonly changes: readonly Commit[] }[];
  /** The messages, in the end. */
  readonly listings: readonly Listing[];
  /** When nothing was wrong with the system. */
  readonly healthy: readonly Span[];
}

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

type Report = (fault: Fault, example: string) => void;

const MOST_EXAMPLES = 20;

/** Compares what writers, readers and watchers were told with each other: one order of versions must explain it all. */
export function checkHistory(history: History): Verdict {
  const faults: Partial<Record<Fault, number>> = {};
  const examples: string[] = [];
  const report: Report = (fault, example) => {
    faults[fault] = (faults[fault] ?? 0) + 1;
    if (examples.length < MOST_EXAMPLES) examples.push(`${fault}: ${example}`);
  };
  const isHealthy = ({ calledAt, answeredAt }: Read) =>
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

interface Sighting {
  readonly what: string;
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly low: number;
  readonly high: number;
  /** Whether it must be more than, or no less than, all that was answered before it was called. */
  readonly rule: "more" | "no less" | "none";
}

/** What was called after an answer is not behind it. */
function checkTimes(writes: readonly Write[], reads: readonly Read[], strict: ReadonlySet<Read>, report: Report): void {
  const versions: Sighting[] = reads.map((read) => ({
    ...{ what: `read by ${read.by}`, calledAt: read.calledAt, answeredAt: read.answeredAt },
    ...{ low: read.version, high: read.version, rule: strict.has(read) ? "no less" : "none" },
  }));
  const positions: Sighting[] = [];
  for (const { name, calledAt, answer } of writes) {
    if (answer === undefined) continue;
    const { at: answeredAt, version, duplicate } = answer;
    const base = { what: name, calledAt, answeredAt };
    versions.push({ ...base, low: version, high: version, rule: duplicate ? "no less" : "more" });
    const [low, high] = [answer.positions[0], answer.positions.at(-1)];
    if (low !== undefined && high !== undefined) positions.push({ ...base, low, high, rule: "more" });
  }
  sweep(versions, ({ what, low }, floor) => report("version went back", `${what}: ${low} after ${floor}`));
  sweep(positions, ({ what, low }, floor) => report("order not kept", `${what}: at ${low} after ${floor}`));
}

function sweep(sightings: readonly Sighting[], onBack: (sighting: Sighting, floor: number) => void): void {
  const byAnswer = sightings.toSorted((one, other) => one.answeredAt - other.answeredAt);
  let answered = 0;
  let floor = 0;
  for (const sighting of sightings.toSorted((one, other) => one.calledAt - other.calledAt)) {
    for (let next = byAnswer[answered]; next && next.answeredAt < sighting.calledAt; next = byAnswer[++answered]) {
      floor = Math.max(floor, next.high);
    }
    const { rule, low } = sighting;
    if ((rule === "more" && low <= floor) || (rule === "no less" && low < floor)) onBack(sighting, floor);
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

/** What a version is. */
interface Content {
  /** Which of these marks it may bear: more than one where nobody knows who wrote it. */
  readonly marks: readonly string[];
  readonly writes: number;
  readonly messageCount: number;
}

/** Every commit is the work of one writer and follows what that one expected; every read shows what was committed by then. */
function checkCommits(
  commits: readonly Commit[],
  writes: readonly Write[],
  reads: readonly Read[],
  report: Report,
): number {
  const appends = new Map(writes.flatMap((write) => write.messages.map((id) => [id, write] as const)));
  const updates = writes.filter(({ messages }) => messages.length === 0);
  const answered = new Map(updates.flatMap((write) => (write.answer ? [[write.answer.version, write] as const] : [])));
  const unanswered = updates.filter(({ answer }) => answer === undefined);
  const contents = new Map<number, Content>();
  const carriedOut = new Set<Write>();
  let unansweredCommits = 0;
  let content: Content = { marks: [], writes: 0, messageCount: 0 };
  let before = 0;
  for (const { conversation, version, previousVersion, messages } of commits) {
    const words = `${conversation} at ${version}`;
    if (previousVersion !== before) report("watch wrong", `${words} follows ${previousVersion}, and not ${before}`);
    before = version;
    const [first] = messages;
    if (first !== undefined) {
      const write = appends.get(first);
      const isWhole = write !== undefined && String(write.messages) === String(messages) && !carriedOut.has(write);
      if (isWhole) carriedOut.add(write);
      else report("write foreign", `${words} appended ${messages}`);
      content = { ...content, messageCount: content.messageCount + messages.length };
    } else {
      const known = answered.get(version);
      const candidates = unanswered.filter(({ expected }) => expected === previousVersion);
      if (known === undefined) unansweredCommits++;
      else if (known.expected !== previousVersion) {
        report("update lost", `${known.name} expected ${known.expected} and replaced ${previousVersion}`);
      }
      const writers = known ? [known] : candidates;
      if (writers.length === 0) report("write foreign", `${words}: nobody wrote that state`);
      const marks = writers.map(({ mark }) => mark);
      content = { ...content, marks, writes: content.writes + 1 };
    }
    contents.set(version, content);
  }
  for (const write of writes) {
    const { name, messages, answer } = write;
    if (answer === undefined) continue;
    if (!contents.has(answer.version)) report("write lost", `${name}: no commit has its version ${answer.version}`);
    else if (messages.length > 0 && !carriedOut.has(write)) {
      report("write lost", `${name}: no commit has its messages`);
    }
  }
  for (const read of reads) checkRead(read, contents.get(read.version), report);
  return unansweredCommits;
}

function checkRead({ by, version, mark, writes, messageCount }: Read, content: Content | undefined, report: Report) {
  const seen = `${by} saw ${mark}, state ${writes}, ${messageCount} messages at ${version}`;
  if (content === undefined) report("read torn", `${seen}, which was never committed`);
  else if (!content.marks.includes(mark) || writes !== content.writes || messageCount !== content.messageCount) {
    report(
      "read torn",
      `${seen}: ${content.marks}, state ${content.writes}, ${content.messageCount} messages were due`,
    );
  }
}
