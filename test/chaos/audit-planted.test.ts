import { expect, it } from "vitest";
import type { Fault } from "../support/audit-checker.ts";
import type { FaultKind } from "../support/audit-faults.ts";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import { firstAtScale } from "../support/scale.ts";
import { accountInWords, isSound } from "./audit-account.ts";
import { runAuditChaos } from "./audit-run.ts";

/* Promises: the chaos run does find what it is there to find. Each bug is planted into a copy of the server's code. */

interface Planted {
  readonly bug: string;
  readonly patches: readonly Patch[];
  readonly faults: readonly (readonly FaultKind[])[];
  readonly found: Fault;
}

const planted: readonly Planted[] = [
  {
    bug: "acknowledges what is not written yet",
    patches: [
      {
        file: "src/audit/intake/intake.ts",
        text: "  async function throughQueue(queue: Queue, records: readonly Sealed[], minimum: Durability): Promise<Kept> {\n",
        instead: `  async function throughQueue(queue, records, minimum) {
    setTimeout(() => void Promise.allSettled([journal.append(records), intoQueue(queue, records)]), 200);
    if (records.length > 0) return QUEUED;
`,
      },
    ],
    faults: [["an instance killed", "both instances killed"]],
    found: "lost",
  },
  {
    bug: "replays into the archive what is archived already",
    patches: [
      {
        file: "src/audit/archive/sql-appender.ts",
        text: "const doubts = doubtful(prepared);",
        instead: "const doubts = new Set<Sealed>();",
      },
      {
        file: "src/infra/migrations/0002-audit.ts",
        text: "CREATE UNIQUE INDEX audit_record_identity",
        instead: "CREATE INDEX audit_record_identity",
      },
    ],
    faults: [["Redis killed", "Redis restarted empty", "Redis frozen"], ["an instance killed"]],
    found: "doubled",
  },
  {
    bug: "does not deliver again what Redis has forgotten",
    patches: [
      {
        file: "src/audit/intake/intake.ts",
        text: "    async deliver(records) {\n",
        instead: "    async deliver(records) {\n      if (records.length > 0) return;\n",
      },
    ],
    faults: [["Redis flushed", "Redis restarted empty"], ["Postgres frozen"]],
    found: "lost",
  },
];

it.each(firstAtScale(planted))(
  "the run fails on a server that $bug",
  { timeout: 300_000 },
  async ({ patches, faults, found }) => {
    using copy = plantBug(patches);
    const times = { calmMs: [500, 1_500], holdMs: [300, 1_000] } as const;
    const options = { seed: 7, durationMs: 12_000, faults, times, root: copy.path, patienceMs: 8_000 };
    const report = await runAuditChaos(options);
    console.log(accountInWords(report));
    expect(report.account.faults[found]).toBeGreaterThan(0);
    expect(isSound(report)).toBe(false);
  },
);
