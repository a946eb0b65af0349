import type { ChaosReport } from "./audit-run.ts";

/** The account of a run, for whoever reads its output. */
export function accountInWords(report: ChaosReport): string {
  const { account, proofs, faults, producers, callers, consumers, undelivered, mostMiB, unsettled } = report;
  const sum = (of: (one: ChaosReport["producers"][number]) => number) =>
    producers.reduce((total, one) => total + of(one), 0);
  const merged = (records: readonly Readonly<Record<string, number>>[]) => {
    const total: Record<string, number> = {};
    for (const record of records) for (const [name, n] of Object.entries(record)) total[name] = (total[name] ?? 0) + n;
    const names = Object.keys(total).sort();
    return names.length === 0 ? "none" : names.map((name) => `${name} ${total[name]}`).join(", ");
  };
  const slowest = (all: readonly { readonly slowestAckMs: number }[]) =>
    all.map(({ slowestAckMs }) => `${Math.round(slowestAckMs)} ms`).join(", ");
  const lines: [string, string][] = [
    ["faults injected", merged([faults])],
    ["records", `${account.sent} sent, ${account.acked} acked, ${account.archived} archived`],
    ["archived, not acked", `${account.archivedUnacked}`],
    ["appends by request id", `${account.requests.sent} sent, ${account.requests.acked} acked`],
    ["reviews", `${account.reviews.decided} decided, ${account.reviews.archived} archived`],
    ["deliveries", consumers.map((one) => `${one.deliveries}, of which again ${one.redeliveries}`).join("; ")],
    ["acked, not delivered", `${undelivered}`],
    ["duplicates acked", `${sum(({ duplicates }) => duplicates)}`],
    ["refused for now", `${sum(({ refusedForNow }) => refusedForNow)}`],
    ["acks by durability", merged([...producers, ...callers].map(({ byDurability }) => byDurability))],
    ["records acked degraded", `${sum(({ degraded }) => degraded)}`],
    ["streams", `${sum(({ streams }) => streams)}, cut off by their producer ${sum(({ vanished }) => vanished)}`],
    ["other ends of streams", merged(producers.map(({ ends }) => ends))],
    ["failed appends", merged(callers.map(({ failures }) => failures))],
    ["slowest ack", `by producer ${slowest(producers)}; by request id ${slowest(callers)}; retries included`],
    ["most unacked", `${Math.max(0, ...producers.map(({ mostUnackedRecords }) => mostUnackedRecords))} records`],
    ["largest memory of a server", `${Math.round(mostMiB)} MiB`],
    ["leaves of the tree", `${account.leaves}, root recomputed`],
    [
      "proofs checked",
      `${proofs.checkpoints} checkpoints, ${proofs.inclusions} inclusions, ${proofs.consistencies} consistencies`,
    ],
    ["leaves read again by Verify", `${proofs.checkedByServer}`],
    ["settled", unsettled ?? "yes"],
    ["FAULTS FOUND", merged([account.faults])],
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  const table = lines.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`);
  return [...table, ...[...account.examples, ...proofs.problems].map((example) => `  ! ${example}`)].join("\n");
}

/** Whether the run proved what it is to prove. */
export function isSound({ account, proofs, undelivered, unsettled }: ChaosReport): boolean {
  const isArchived = Object.keys(account.faults).length === 0 && proofs.problems.length === 0;
  return isArchived && undelivered === 0 && unsettled === undefined;
}
