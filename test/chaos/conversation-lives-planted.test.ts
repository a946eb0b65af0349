import { expect, it } from "vitest";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import { firstAtScale } from "../support/scale.ts";
import type { LifeFault } from "./conversation-lives-replay.ts";
import { runLivesChaos } from "./conversation-lives-run.ts";

/* Promises: the chaos run does find what it is there to find. Each bug is planted into a copy of the server's code. */

const planted: readonly { readonly bug: string; readonly patches: readonly Patch[]; readonly found: LifeFault }[] = [
  {
    bug: "lets late writers bring back what was deleted",
    patches: [
      {
        file: "src/conversation/change/setting.ts",
        text: 'if (presence !== "deleted" || order.expectedVersion === 0) return;',
        instead: "if (order !== undefined) return;",
      },
    ],
    found: "deletion undone",
  },
  {
    bug: "forks the state that is there now instead of that of the version",
    patches: [
      {
        file: "src/conversation/rpc/fork-rpc.ts",
        text: "bytes: earlier.state }",
        instead: "bytes: known?.state ?? earlier.state }",
      },
    ],
    found: "read torn",
  },
  {
    bug: "restores the messages of a version without its state",
    patches: [
      {
        file: "src/conversation/change/restore.ts",
        text: "book.stateOf(live, kept.stateVersion)",
        instead: "book.stateOf(live, live.stateVersion)",
      },
    ],
    found: "read torn",
  },
  {
    bug: "serves a hot copy of what was deleted",
    patches: [
      {
        file: "src/conversation/ledger/sql-ledger.ts",
        text: "copies.cover(changed.map(({ held }) => held))",
        instead: 'copies.cover(changed.map(({ held }) => held).filter(({ presence }) => presence === "live"))',
      },
      {
        file: "src/conversation/ledger/sql-ledger.ts",
        text: "(await cover)?.lift(changed)",
        instead: '(await cover)?.lift(changed.filter(({ held }) => held.presence === "live"))',
      },
    ],
    found: "went back",
  },
];

it.each(firstAtScale(planted))(
  "the run fails on a server that $bug",
  { timeout: 300_000 },
  async ({ patches, found }) => {
    using copy = plantBug(patches);
    const { verdict, problems } = await runLivesChaos({
      seed: 7,
      durationMs: 3_000,
      kinds: ["Redis flushed"],
      root: copy.path,
    });
    console.log(JSON.stringify(verdict.faults), [...verdict.examples, ...problems].slice(0, 5).join("\n"));
    expect(verdict.faults[found]).toBeGreaterThan(0);
  },
);
