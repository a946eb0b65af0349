import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

/** A client process of its own, doing what its job says until it is told to stop or is done. */
export interface LoadProcess<Report> extends AsyncDisposable {
  readonly pid: number;
  /** Names of the moments it has told of so far, such as "leased". */
  readonly told: readonly string[];
  /** Tells it to stop, and resolves with its account. */
  stop(): Promise<Report>;
  /** Its account, once it is done by itself. */
  readonly report: Promise<Report>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

/** What a child sends. */
export type LoadMessage = { readonly told: string } | { readonly report: unknown } | { readonly failed: string };

/** Runs `test/support/<script>` in a process that ends with this one. `read` checks what it reports. */
export async function startLoad<Report>(
  script: `load-${string}.ts`,
  job: unknown,
  read: (report: unknown) => report is Report,
): Promise<LoadProcess<Report>> {
  const child = fork(join(import.meta.dirname, script), [JSON.stringify(job)], { serialization: "advanced" });
  const told: string[] = [];
  const gone = once(child, "exit");
  const { promise: report, resolve, reject } = Promise.withResolvers<Report>();
  // Nobody may be waiting for it yet.
  report.catch(() => undefined);
  child.on("message", (message: LoadMessage) => {
    if ("told" in message) told.push(message.told);
    else if ("failed" in message) reject(new Error(`${script}: ${message.failed}`));
    else if (read(message.report)) resolve(message.report);
    else reject(new Error(`${script} reported ${JSON.stringify(message.report)}`));
  });
  void gone.then(() => reject(new Error(`${script} ended without a report`)));
  await once(child, "spawn");
  const kill = async () => {
    child.kill("SIGKILL");
    await gone;
  };
  return {
    pid: pidOf(child),
    told,
    report,
    async stop() {
      if (child.connected) child.send("stop");
      return report;
    },
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error("a load process did not start");
  return pid;
}
