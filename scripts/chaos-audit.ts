// The chaos run of the audit log, for as long as you like: npm run chaos:audit -- --minutes 10 --seed 7
import { parseArgs } from "node:util";
import { accountInWords, isSound } from "../test/chaos/audit-account.ts";
import { runAuditChaos } from "../test/chaos/audit-run.ts";

const usage = "usage: npm run chaos:audit -- [--minutes N] [--seed N] [--rate RECORDS_PER_SECOND_OF_EACH_PRODUCER]";

function positive(name: string, given: string | undefined, otherwise: number): number {
  const value = given === undefined ? otherwise : Number(given);
  if (Number.isFinite(value) && value > 0) return value;
  console.error(`--${name} must be a number above 0, not "${given}"\n${usage}`);
  process.exit(2);
}

const text = { type: "string" } as const;
const { values } = parseArgs({ options: { minutes: text, seed: text, rate: text } });
const minutes = positive("minutes", values.minutes, 1);
const seed = Math.floor(positive("seed", values.seed, 1 + (Date.now() % 1_000_000)));
const recordsPerSecond = positive("rate", values.rate, 300);

console.log(`chaos for ${minutes} minutes, seed ${seed}; again with --minutes ${minutes} --seed ${seed}`);
const log = (line: string) => console.log(line);
const report = await runAuditChaos({ seed, durationMs: minutes * 60_000, recordsPerSecond, log });
console.log(`seed ${seed}:\n${accountInWords(report)}`);
console.log(isSound(report) ? "Nothing acknowledged was lost or doubled." : "THE AUDIT LOG BROKE ITS PROMISE.");
process.exitCode = isSound(report) ? 0 : 1;
