import { PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Gives back what loading the modules has left behind, before the first call comes in. V8 keeps the space that its young
 * generation grew to meanwhile, about 20 MB, unless it is told that memory is short; for a process that may stay idle that is
 * a fifth of all it takes.
 */
export function returnMemory(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor: "last-resort" });
}

/** Both halves of the young generation together. V8 would let them grow to 128 MiB. */
const YOUNG_BYTES = 32 * 1024 * 1024;
/** By how much the old generation may outgrow what was in use after its last collection. V8 would let it grow to several times that. */
const OLD_GROWTH_PERCENT = 70;

/** Has garbage collected before it is several times what is in use. */
export function limitOldGeneration(): void {
  setFlagsFromString(`--heap-growing-percent=${OLD_GROWTH_PERCENT}`);
}

/**
 * Keeps the young generation small. V8 doubles it as long as much of it survives, as it does when records by the ten thousand are
 * on their way; but what is on its way here is not kept long, and a larger one collects less often, not less. The limit can
 * only be set before V8 starts; how fast it grows can be set at any time. Undone by what it returns.
 */
export function limitYoungGeneration(bytes = YOUNG_BYTES): () => void {
  let limited = false;
  const observer = new PerformanceObserver(() => {
    const young = getHeapSpaceStatistics().find(({ space_name: name }) => name === "new_space");
    const wanted = young !== undefined && young.space_size >= bytes;
    if (wanted === limited) return;
    limited = wanted;
    setFlagsFromString(`--semi-space-growth-factor=${limited ? 1 : 2}`);
  });
  observer.observe({ entryTypes: ["gc"] });
  return () => {
    observer.disconnect();
    if (limited) setFlagsFromString("--semi-space-growth-factor=2");
  };
}

/** What is looked at and done; the process's own outside of tests. */
export interface IdleMemory {
  /** How many calls have come in so far. */
  calls(): number;
  /** What the heap takes of the machine's memory, in use or not. */
  takenBytes(): number;
  returnMemory(): void;
  /** Calls `work` again and again, `ms` apart, until it is cancelled. */
  again(work: () => void, ms: number): () => void;
}

const TICK_MS = 1_000;
/** So many in a row without a call: the pause between two bursts is not rest. */
const QUIET_TICKS = 2;
/** Between one collection and the next, so that calls which come every few seconds do not each meet one. */
const APART_TICKS = 30;
const WORTH_BYTES = 8 * 1024 * 1024;
/** It takes about 3 ms a megabyte that stays. A process that is to keep more than this is left to V8. */
const MOST_KEPT_BYTES = 128 * 1024 * 1024;

/**
 * While calls come in, V8 does well to let both generations grow within their limits; but it collects only when something is
 * allocated, so after the last call all of it would stay. This gives it back when nobody calls, and never while
 * somebody does. Cancelled by what it returns.
 */
export function returnMemoryWhenIdle(keptBytes: number, { calls, takenBytes, ...idle }: IdleMemory): () => void {
  if (keptBytes > MOST_KEPT_BYTES) return () => {};
  let seen = calls();
  let quiet = 0;
  let since = APART_TICKS;
  let settled = takenBytes();
  return idle.again(() => {
    const now = calls();
    quiet = now === seen ? quiet + 1 : 0;
    seen = now;
    since++;
    if (quiet < QUIET_TICKS || since < APART_TICKS || takenBytes() < settled + WORTH_BYTES) return;
    idle.returnMemory();
    settled = takenBytes();
    since = 0;
  }, TICK_MS);
}

/** A process that does more than this of the time is not idle, though all it does be for one stream that was opened long ago. */
const BUSY_SHARE = 0.1;

/** Of this process, whose calls are counted by `calls`. */
export function ownMemory(calls: () => number): IdleMemory {
  let since = performance.eventLoopUtilization();
  let busyTicks = 0;
  return {
    calls() {
      const now = performance.eventLoopUtilization();
      if (performance.eventLoopUtilization(now, since).utilization > BUSY_SHARE) busyTicks++;
      since = now;
      return calls() + busyTicks;
    },
    takenBytes() {
      const { heapTotal, external } = process.memoryUsage();
      return heapTotal + external;
    },
    returnMemory,
    again(work, ms) {
      const timer = setInterval(work, ms).unref();
      return () => clearInterval(timer);
    },
  };
}
