import type { CallContext, Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { Failure } from "../infra/failure.ts";
import { createFences } from "../infra/fences.ts";
import type { Fences } from "../infra/fencing.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { startFenceSweeper } from "../infra/sql-fence-sweeper.ts";
import type { Sweeper } from "../infra/sweeper.ts";
import type { RunningLocks } from "./lock.ts";

export interface FencingParts {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  readonly locks: Pick<RunningLocks, "authority">;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

export interface RunningFencing {
  readonly fences: Fences;
  /** Counts what of a service's fenced writes is refused for their tokens. */
  counted(mounted: Mounted): Mounted;
}

type UnaryRpc = (request: object, call: CallContext) => unknown;

/** What checks the tokens of writes, for all who are asked to write under a lock. */
export function startFencing({ log, metrics, database, locks, parts }: FencingParts): RunningFencing {
  const { authority } = locks;
  const fences = createFences({
    database,
    lastTokenOf: async (lock) => (await authority.look(lock)).lastToken,
    clock: systemClock,
  });
  parts.adopt(startFenceSweeper({ database, log: log.child({ component: "fencing" }) }), (it: Sweeper) => it.close());
  const refusals = metrics.counter(
    "holdfast_fencing_refused_total",
    "Writes that were refused, or not decided, for the lock and token that they named",
    ["service", "reason"],
  );

  function count(service: string, error: unknown): void {
    if (!(error instanceof Failure)) return;
    const { reason } = error;
    if (/^(FENCING|LOCK)_/.test(reason)) refusals.with({ service, reason }).inc();
  }

  return {
    fences,
    counted(mounted) {
      const { typeName, methods } = mounted.service;
      const rpcs = { ...mounted.rpcs };
      for (const { localName, methodKind, input } of methods) {
        const rpc = rpcs[localName];
        if (methodKind !== "unary" || input.field.fencing === undefined || !isUnary(rpc)) continue;
        const counting = async (request: object, call: CallContext) => {
          try {
            return await rpc(request, call);
          } catch (error) {
            count(typeName, error);
            throw error;
          }
        };
        // Whoever names no lock must not pay for it.
        const fenced: UnaryRpc = (request, call) =>
          "fencing" in request && request.fencing !== undefined ? counting(request, call) : rpc(request, call);
        rpcs[localName] = fenced;
      }
      return { ...mounted, rpcs };
    },
  };
}

function isUnary(rpc: unknown): rpc is UnaryRpc {
  return typeof rpc === "function";
}
