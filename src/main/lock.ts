import type { Config } from "../config.ts";
import { LockService } from "../gen/holdfast/v1/lock_pb.js";
import type { Component } from "../health/component.ts";
import type { Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { UnavailableError } from "../infra/failure.ts";
import { lateRpcs } from "../infra/late-rpcs.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { Authority, Voter } from "../lock/authority/authority.ts";
import { createKeepings, drainingFailure, type Keepings } from "../lock/hold/keepings.ts";
import { AUTHORITY_NAMES, createLockMetrics } from "../lock/metrics.ts";
import { createNotice, type Notice } from "../lock/notice.ts";
import { createLockPolicyFor } from "../lock/policies.ts";
import { LIMITS } from "../lock/rpc/fields.ts";
import type { ForceReleaseOptions } from "../lock/rpc/force-release-rpc.ts";
import { createLockService } from "../lock/service.ts";
import { createLines } from "../lock/wait/lines.ts";
import type { Coordination } from "./coordination.ts";
import { openLockAuthority } from "./lock-authority.ts";

export interface LockParts extends Pick<Coordination, "redis" | "backplane" | "frame"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  /** Keeps an audit record of a lock that is taken away. */
  readonly record: ForceReleaseOptions["record"];
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

export interface RunningLocks {
  readonly service: Mounted;
  readonly health: Component;
  /** Calls the listener whenever a master of Redlock is given up, or is back. */
  readonly onMastersChange: (listener: () => void) => void;
  readonly authority: Authority;
  /** Sends away who waits, and lets other instances go on with what is kept by streams. Before the streams are ended. */
  readonly handOver: (graceMs: number) => Promise<void>;
}

/** RPCs whose code is loaded when somebody asks for them: all, since many a server has no locks. */
const RPCS = [
  ...(["acquire", "renew", "release", "hold"] as const),
  ...(["get", "list", "checkToken", "forceRelease"] as const),
];

/** What an authority that does not answer may take of a drain. */
const HAND_OVER_MS = 2_000;

/** Looked at to see whether the authority can decide; nobody takes it. */
const PROBE = "holdfast/health";

/** Locks, decided by the authority that was configured. */
export async function startLocks(options: LockParts): Promise<RunningLocks> {
  const { config, metrics, backplane, record, parts } = options;
  const log = options.log.child({ component: "lock" });
  const clock = systemClock;
  const { instanceId } = config;
  const policyFor = createLockPolicyFor(config.lock.policies);
  const listeners: (() => void)[] = [];
  const mastersChanged = () => {
    for (const listener of listeners) listener();
  };
  const authority = parts.adopt(
    await openLockAuthority({ ...options, log, plainLog: options.log, mastersChanged }),
    (it: Authority) => it.close(),
  );
  const keepings = parts.adopt(createKeepings(), (it: Keepings) => it.close());
  const lines = createLines({ authority, clock, log, mostWaiting: LIMITS.waiting });
  const notice = parts.adopt(createNotice({ backplane, lines, keepers: keepings, log }), (it: Notice) => it.close());
  const measures = createLockMetrics({
    ...{ metrics, authority },
    waiting: () => lines.waiting,
    kept: () => keepings.size,
  });
  const service = createLockService([
    lateRpcs(LockService, RPCS, async () => {
      const { createLockRpcs } = await import("./lock-rpcs.ts");
      const shared = { authority, lines, keepings, notice, policyFor, metrics: measures, instanceId, clock, log };
      return createLockRpcs({ ...shared, record });
    }),
  ]);
  return {
    service,
    health: healthOf(authority, config.lock),
    onMastersChange: (listener) => void listeners.push(listener),
    authority,
    async handOver(graceMs) {
      lines.close(drainingFailure());
      await keepings.handOver(Math.min(graceMs, HAND_OVER_MS));
    },
  };
}

function healthOf(authority: Authority, { fallback }: Pick<Config["lock"], "fallback">): Component {
  return {
    name: "lock",
    get kind() {
      return AUTHORITY_NAMES[authority.kind];
    },
    check: async () => {
      // Both at once: each waits for a master that is frozen.
      const [missing, failure] = await Promise.all([
        authority.voters?.ask().then(missingVotes) ?? "",
        authority.look(PROBE).then(
          () => undefined,
          (error: unknown) => error,
        ),
      ]);
      if (failure instanceof UnavailableError) {
        throw new Error(missing === "" ? failure.message : `${failure.message}; ${missing}`, { cause: failure });
      }
      if (failure !== undefined) throw failure;
      if (missing !== "") return { degraded: `locks are decided, but ${missing}` };
      const standsIn = fallback !== undefined && AUTHORITY_NAMES[authority.kind] === fallback;
      return standsIn
        ? { degraded: `${fallback} decides about locks while an instance does not reach Redis` }
        : undefined;
    },
    whenUnwell: "no lock is granted or renewed, nor called free",
  };
}

/** Empty: none. */
function missingVotes(voters: readonly Voter[]): string {
  const away = voters.flatMap(({ place, missing }) => (missing === undefined ? [] : `number ${place}: ${missing}`));
  if (away.length === 0) return "";
  return `${away.length} of the ${voters.length} lock masters (LOCK_REDLOCK_URLS) do not vote: ${away.join("; ")}`;
}
