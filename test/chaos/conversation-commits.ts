import type { Report } from "./conversation-checker.ts";
import type { Commit, Read, Write } from "./conversation-history.ts";

/** What a version is. */
interface Content {
  /** Which of these marks it may bear: more than one where nobody knows who wrote it. */
  readonly marks: readonly string[];
  readonly writes: number;
  readonly messageCount: number;
}

/** Every commit is the work of one writer and follows what that one expected; every read shows what was committed by then. */
export function checkCommits(
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
