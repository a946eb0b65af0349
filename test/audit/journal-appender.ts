import { writeSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { setTimeout as delay } from "node:timers/promises";
import { openJournal } from "../../src/audit/journal/journal-directory.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { recordsOf } from "./journals.ts";

/**
 * A process that appends to a journal until it is killed, and says on stdout what was acknowledged:
 * `journal-appender.ts DIRECTORY FIRST [careless]`. A careless one says so before it is, as the planted bug.
 */
const [directory = "", first = "1", care] = process.argv.slice(2);
const journal = await openJournal({
  directory,
  maxBytes: 2 ** 30,
  segmentBytes: 64 * 1024,
  clock: systemClock,
  log: createLog({ level: "silent" }),
});
// Killed as it will be, it would leave nothing of this to the next one.
flushCompileCache();
let next = Number(first);

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

async function appendOn(): Promise<void> {
  for (;;) {
    const count = 1 + (next % 40);
    const records = recordsOf("appender", next, count);
    const line = `acked ${next} ${count}`;
    next += count;
    const appended = journal.append(records);
    if (care === "careless") say(line);
    try {
      await appended;
    } catch (error) {
      say(`refused ${error instanceof Error ? `${error.message} ${String(error.cause)}` : String(error)}`);
      return;
    }
    if (care !== "careless") say(line);
    // Out of step with the others, so that at any moment some wait for the commit of others to end.
    await delay(Math.random() * 2);
  }
}

say("ready");
await Promise.all(Array.from({ length: 8 }, appendOn));
await journal.close();
say("done");
