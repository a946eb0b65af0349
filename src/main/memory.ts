import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Gives back what loading the modules has left behind. V8 keeps the space that its young generation grew to meanwhile, about
 * 20 MB, unless it is told that memory is short; for a process that may stay idle that is a fifth of all it takes. Called once,
 * before the first call comes in, since it stops the process for some ten milliseconds.
 */
export function returnMemory(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor: "last-resort" });
}
