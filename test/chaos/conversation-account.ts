import type { ChaosReport } from "./conversation-run.ts";

/** The account of a run, for whoever reads its output. */
export function accountInWords({ verdict, history, load, faults, watchesOpened, problems }: ChaosReport): string {
  const { writes, reads, healthy } = history;
  const counted = (record: Readonly<Record<string, number>>) =>
    Object.entries(record)
      .map(([name, n]) => `${name} ${n}`)
      .join(", ") || "none";
  const acked = writes.filter(({ answer }) => answer !== undefined);
  const appends = acked.filter(({ messages }) => messages.length > 0);
  const listed = history.listings.reduce((sum, { messages }) => sum + messages.length, 0);
  const healthyMs = healthy.reduce((sum, { from, to }) => sum + to - from, 0);
  const lines: [string, string][] = [
    ["faults injected", counted(faults)],
    ["healthy", `${(healthyMs / 1000).toFixed(1)} s in ${healthy.length} spans`],
    [
      "appends acknowledged",
      `${appends.length}, ${appends.filter(({ answer }) => answer?.duplicate).length} by a retry`,
    ],
    ["messages acknowledged", `${appends.reduce((sum, { messages }) => sum + messages.length, 0)}`],
    ["messages there", `${listed / 2} on each instance`],
    ["updates acknowledged", `${acked.length - appends.length}, refused ${load.conflicts}`],
    ["updates without an answer", `${writes.length - acked.length}, ${verdict.unansweredCommits} of them committed`],
    ["calls tried again", `${load.retries}`],
    ["answers marked degraded", `${load.degraded.length}`],
    ["reads", `${reads.length}, of which ${verdict.strictReads} must not be behind`],
    [
      "told by watches",
      `${history.told.map(({ changes }) => changes.length).join(" and ")}, opened ${watchesOpened} times`,
    ],
    ["committed", `${history.commits.map(({ changes }) => changes.length).join(" and ")}`],
    ["FAULTS FOUND", counted(verdict.faults)],
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  const table = lines.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`);
  return [...table, ...[...verdict.examples, ...problems.slice(0, 10)].map((example) => `  ! ${example}`)].join("\n");
}
