import type { Log } from "../infra/log.ts";

export interface Signals {
  /** Aborted by the first SIGTERM or SIGINT: finish, then exit. */
  readonly stop: AbortSignal;
  /** Resolves at that moment. */
  readonly stopped: Promise<void>;
  onHangup(reload: () => void): void;
}

/** Listens to what the outside says to the process. The second SIGTERM or SIGINT ends it at once. */
export function listenToSignals(log: Log): Signals {
  const stop = new AbortController();
  const { promise: stopped, resolve } = Promise.withResolvers<void>();
  const onStop = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) {
      log.warn({ signal }, "told a second time: ending at once");
      process.exit(signal === "SIGINT" ? 130 : 143);
    }
    log.info({ signal }, "draining");
    stop.abort();
    resolve();
  };
  process.on("SIGTERM", onStop);
  process.on("SIGINT", onStop);
  const reloads: (() => void)[] = [];
  // Even with nothing to reload it must not end the process, which is what an unheard SIGHUP does.
  process.on("SIGHUP", () => {
    for (const reload of reloads) reload();
  });
  return { stop: stop.signal, stopped, onHangup: (reload) => reloads.push(reload) };
}

/** A defect that nobody caught may have left anything half done: say so and end, to be started again. */
export function dieOfDefects(log: Log): void {
  const die = (err: unknown) => {
    log.error({ err, fatal: true }, "a defect: the process ends");
    process.exit(1);
  };
  process.on("uncaughtException", die);
  process.on("unhandledRejection", die);
}
