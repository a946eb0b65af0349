import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { scratchDirectory } from "./scratch.ts";

/**
 * The wall clock of a process, which a test moves as an administrator or a time server would: its monotonic clock, its timers and
 * everybody else's clocks go on as they were.
 */
export interface SkewedClock extends Disposable {
  /** For the environment of the process. */
  readonly env: Readonly<Record<string, string>>;
  /** By how much the clock is ahead of the real one, or behind it. The process follows within a moment. */
  set(skewMs: number): void;
}

export function skewedClock(): SkewedClock {
  const directory = scratchDirectory("clock");
  const file = join(directory.path, "skew");
  const set = (skewMs: number) => {
    writeFileSync(`${file}.new`, String(skewMs));
    // The process never reads half a number.
    renameSync(`${file}.new`, file);
  };
  set(0);
  const preload = join(directory.path, "preload.mjs");
  writeFileSync(preload, PRELOAD);
  return {
    env: { NODE_OPTIONS: `--import=${pathToFileURL(preload).href}`, CLOCK_SKEW_FILE: file },
    set,
    [Symbol.dispose]: () => directory.remove(),
  };
}

/** Runs in the process before its own code. */
const PRELOAD = `
import { readFileSync } from "node:fs";
const read = () => Number(readFileSync(process.env.CLOCK_SKEW_FILE, "utf8"));
let skew = read();
setInterval(() => { skew = read(); }, 20).unref();
const RealDate = Date;
const realNow = Date.now;
globalThis.Date = class Date extends RealDate {
  constructor(...args) { if (args.length === 0) super(realNow() + skew); else super(...args); }
  static now() { return realNow() + skew; }
};
`;
