import { ConfigError } from "../../config.ts";
import { ApiError } from "../client/api.ts";
import { BrokenOffError } from "./interruption.ts";
import { SourceError } from "./source.ts";

/** An import, for those who wait for it. */
export interface Undertaking {
  carryOut(): Promise<void>;
  /** How much was read. */
  news(): number;
  /** One line, while it goes on. */
  progress(): string;
  /** The whole, for the end. */
  account(): string[];
  /** How many were refused. */
  refused(): number;
}

export interface Onlooker {
  print(line: string): void;
  remark(line: string): void;
}

const PROGRESS_MS = 2000;

/** Carries it out and tells how it went, also when it is given up. Resolves with the exit code: 0 when nothing was refused. */
export async function seeThrough(undertaking: Undertaking, { print, remark }: Onlooker): Promise<number> {
  const finish = () => print(undertaking.account().join("\n"));
  try {
    await reporting(undertaking, remark);
  } catch (error) {
    const isBrokenOff = error instanceof BrokenOffError;
    if (!isBrokenOff && !(error instanceof ApiError) && !(error instanceof SourceError)) throw error;
    remark(isBrokenOff ? "broken off" : `given up: ${error.message}`);
    const when = isBrokenOff ? "for the rest" : "when that is mended";
    remark(`run it again ${when}: what is there already is not imported twice`);
    finish();
    return 1;
  }
  finish();
  return undertaking.refused() === 0 ? 0 : 1;
}

/** Resolves with the exit code of `work`, or says what is wrong with the source. */
export async function onSource(work: () => Promise<number>, { remark }: Onlooker): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof SourceError) && !(error instanceof ConfigError)) throw error;
    remark(`holdfast: ${error.message}`);
    return 1;
  }
}

/** Reports now and then while it goes on, if there is news. */
async function reporting(undertaking: Undertaking, remark: Onlooker["remark"]): Promise<void> {
  let seen = undertaking.news();
  const timer = setInterval(() => {
    if (undertaking.news() === seen) return;
    seen = undertaking.news();
    remark(undertaking.progress());
  }, PROGRESS_MS);
  try {
    await undertaking.carryOut();
  } finally {
    clearInterval(timer);
  }
}
