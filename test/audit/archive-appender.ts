import { writeSync } from "node:fs";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import { idOf, type Sealed } from "../../src/audit/record/record.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { sealed } from "./archives.ts";

/*
 * A process that appends the same 1,200 identities as every other one, in an order of its own and some of them again and again,
 * and says what became of each: `archive-appender.ts URL NAME`. Every tenth sequence says something else in each process.
 */

const [url = "", name = ""] = process.argv.slice(2);
const database = openPostgres({ url, poolSize: 4, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 });
const archive = createSqlArchive({
  ...{ database, clock: systemClock, log: createLog({ level: "silent" }) },
  growth: createGrowth(createLocalBackplane()),
});

const contentOf = (sequence: number) => (sequence % 10 === 0 ? name : "all");
const record = (producer: string, sequence: number): Sealed =>
  sealed({ producer, sequence }, { actor: contentOf(sequence), action: `a.${sequence % 5}` }, Date.now() * 1000);

async function bring(batch: readonly Sealed[]): Promise<void> {
  const placed = await archive.append(batch, "refuse");
  const lines = batch.map((one, at) => {
    const { outcome = "failed", leafIndex = -1 } = placed[at] ?? {};
    return `${outcome} ${idOf(one)} ${leafIndex} ${contentOf(one.sequence)}\n`;
  });
  writeSync(1, lines.join(""));
}

const producers = ["one", "two", "@r.three"];
const batches = producers.flatMap((producer) =>
  Array.from({ length: 40 }, (_, at) => ({ producer, first: 10 * at + 1, order: Math.random() })),
);
writeSync(1, "ready\n");
try {
  for (let round = 0; round < 2; round++) {
    batches.sort((a, b) => a.order - b.order);
    for (const batch of batches) batch.order = Math.random();
    for (let at = 0; at < batches.length; at += 4) {
      const calls = batches.slice(at, at + 4).map(({ producer, first }) => {
        const records = Array.from({ length: 10 }, (_, i) => record(producer, first + i));
        return bring(Math.random() < 0.3 ? records.reverse() : records);
      });
      await Promise.all(calls);
    }
  }
} catch (error) {
  writeSync(1, `failed ${error instanceof Error ? error.stack : String(error)}\n`);
}
await database.close();
writeSync(1, "done\n");
