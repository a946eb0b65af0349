// Servers go before the directories that they write into.
const cleanups = { processes: new Set<() => void>(), directories: new Set<() => void>() };
let watching = false;

/** Does something when this process ends by itself or is interrupted; not when it is killed outright. */
export function atEnd(what: keyof typeof cleanups, cleanup: () => void): void {
  cleanups[what].add(cleanup);
  if (watching) return;
  watching = true;
  process.once("exit", runAll);
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(name, () => {
      runAll();
      // Nobody else is listening: end as the signal would have ended us.
      if (process.listenerCount(name) === 0) process.kill(process.pid, name);
    });
  }
}

function runAll(): void {
  for (const some of [cleanups.processes, cleanups.directories]) {
    for (const cleanup of some) cleanup();
    some.clear();
  }
}
