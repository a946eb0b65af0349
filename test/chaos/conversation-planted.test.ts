import { expect, it } from "vitest";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import { firstAtScale } from "../support/scale.ts";
import { accountInWords } from "./conversation-account.ts";
import type { Fault } from "./conversation-checker.ts";
import { runConversationChaos } from "./conversation-run.ts";

/* Promises: the chaos run does find what it is there to find. Each bug is planted into a copy of the server's code. */

const planted: readonly { readonly bug: string; readonly patches: readonly Patch[]; readonly found: Fault }[] = [
  {
    bug: "does not compare versions when a conversation is there",
    patches: [
      {
        file: "src/conversation/change/setting.ts",
        text: "expected === undefined || expected === (live?.version ?? 0)",
        instead: "expected === undefined || live !== undefined || expected === 0",
      },
    ],
    found: "update lost",
  },
  {
    bug: "acknowledges what it does not append",
    patches: [
      {
        file: "src/conversation/change/carry-out.ts",
        text: "live !== undefined && placed.fresh.length === 0",
        instead: "live !== undefined && (placed.fresh.length === 0 || live.messageCount % 5 === 4)",
      },
    ],
    found: "message lost",
  },
  {
    bug: "leaves hot copies as they were",
    patches: [
      {
        file: "src/conversation/ledger/sql-ledger.ts",
        text: "copies.cover(changed.map(({ held }) => held))",
        instead: "copies.cover([])",
      },
      { file: "src/conversation/ledger/sql-ledger.ts", text: "(await cover)?.lift(changed)", instead: "await cover" },
    ],
    found: "version went back",
  },
];

it.each(firstAtScale(planted))(
  "the run fails on a server that $bug",
  { timeout: 300_000 },
  async ({ patches, found }) => {
    using copy = plantBug(patches);
    const options = { seed: 7, durationMs: 3_000, redisFaults: ["Redis flushed"], root: copy.path } as const;
    const report = await runConversationChaos(options);
    console.log(accountInWords(report));
    expect(report.verdict.faults[found]).toBeGreaterThan(0);
  },
);
