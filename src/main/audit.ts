import type { Archive } from "../audit/archive/archive.ts";
import { createGrowth, type Growth } from "../audit/archive/growth.ts";
import { createSqlArchive } from "../audit/archive/sql-archive.ts";
import { groupSizes } from "../audit/groups/sql-group-sizes.ts";
import { createAppendRpcs } from "../audit/intake/append-rpcs.ts";
import { createIntake, type Intake } from "../audit/intake/intake.ts";
import { lastSequence } from "../audit/intake/last-sequence.ts";
import { createRoom } from "../audit/intake/room.ts";
import { createServerIdentity } from "../audit/intake/server-identity.ts";
import { type Barrier, createBarrier } from "../audit/intake/settled.ts";
import type { Journal } from "../audit/journal/journal.ts";
import { openJournal } from "../audit/journal/journal-directory.ts";
import { createRecovery, type Recovery } from "../audit/journal/recovery.ts";
import { loadSigningKey } from "../audit/proof/signing-key.ts";
import type { Retention } from "../audit/retention/retention.ts";
import type { SqliteIndex } from "../audit/search/sqlite-index.ts";
import { createAuditService } from "../audit/service.ts";
import { createUsage, type Usage } from "../audit/usage.ts";
import type { Config } from "../config.ts";
import { AuditService } from "../gen/holdfast/v1/audit_pb.js";
import type { Component } from "../health/component.ts";
import type { AuditHealthNumbers } from "../health/health.ts";
import type { Mounted, Rpcs } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { lateRpcs } from "../infra/late-rpcs.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { AuditQueueParts } from "./audit-queue.ts";
import type { Coordination } from "./coordination.ts";

export interface AuditParts extends Pick<Coordination, "redis" | "backplane"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

export interface RunningAudit {
  readonly service: Mounted;
  readonly health: () => AuditHealthNumbers;
  readonly journal: Component;
  /** For records of what this server itself does, in the name of its caller. */
  readonly append: NonNullable<Rpcs<typeof AuditService>["append"]>;
}

/** RPCs whose code is loaded when somebody asks for them. */
const READS = [
  ...(["get", "list", "listPending", "export", "reconcile", "review", "isApproved", "checkpoint", "verify"] as const),
  ...(["subscribe", "tail", "getGroup", "listDeadLetters", "requeueDeadLetters"] as const),
];

/** What all writers together may hold in memory while it is on its way. */
const ROOM_BYTES = 16 * 1024 * 1024;

/** The audit log over the tiers of this topology. */
export async function startAudit(options: AuditParts): Promise<RunningAudit> {
  const { config, metrics, database, redis, backplane, parts } = options;
  const log = options.log.child({ component: "audit" });
  const clock = systemClock;
  const growth = parts.adopt(createGrowth(backplane), (it: Growth) => it.close());
  const archive = parts.adopt(createSqlArchive({ database, growth, clock, log }), (it: Archive) => it.close());
  const index = await openIndex(options, growth, log);
  const { backupDir: directory, journalMaxBytes: maxBytes } = config.audit;
  const journal = parts.adopt(await openJournal({ directory, maxBytes, clock, log }), (it: Journal) => it.close());
  const tier =
    redis &&
    (await openQueue({ config, log, redis, growth, archive, clock, parts, onLost: () => barrier.suspectLoss() }));
  const queue = tier?.queue;
  const intake = createIntake({ archive, journal, queue, onLocal: (records) => recovery.markLocal(records) });
  const recovery: Recovery = createRecovery({
    ...{ journal, archive, clock, log, deliver: intake.deliver },
    intervalMs: config.audit.recoveryIntervalMs,
  });
  parts.defer(() => recovery.close());
  const barrier: Barrier = createBarrier({
    ...{ recovery, queue, clock, askArchive: archive.size, alone: !database.shared },
  });
  const { settled } = barrier;
  if (redis !== undefined) watchForLoss(redis, { barrier, recovery, intake, log }, parts);
  const retention = await openRetention(options, archive, index, log);
  // Asked before a key is made: should SQL not answer, the next start still finds the key missing, and says so.
  const hasRecords = (await archive.size()) > 0;
  const signingKey = await loadSigningKey(config.audit.signingKeyFile);
  if (signingKey.created) {
    const file = config.audit.signingKeyFile;
    tellOfNewKey({ file, publicKey: signingKey.publicKey, shared: database.shared, hasRecords }, log);
  }
  const appends = createAppendRpcs({
    ...{ intake, instanceId: config.instanceId, room: createRoom(ROOM_BYTES) },
    identity: createServerIdentity(config.instanceId),
    nowUs: () => clock.now() * 1000,
    lastSequence: (producer) => lastSequence({ archive, journal, queue }, producer),
  });
  const service = createAuditService([
    appends,
    lateRpcs(AuditService, READS, async () => {
      const { createAuditReads } = await import("./audit-reads.ts");
      return createAuditReads({ config, log, database, archive, queue, journal, growth, settled, signingKey });
    }),
  ]);
  const usage = parts.adopt(
    createUsage({
      ...{ metrics, clock, log },
      sources: {
        intake: () => intake.counts,
        journal: () => journal.condition(),
        recovery: () => recovery.condition(),
        archiver: tier && (() => tier.archiver.condition()),
        retention: () => ({ dropped: retention?.condition().dropped ?? 0 }),
        queue: tier && (() => tier.queue.condition()),
        archiveSize: () => archive.size(),
        groups: () => groupSizes(database),
      },
    }),
    (it: Usage) => it.close(),
  );
  return {
    service,
    health: () => {
      const { unarchived, oldestAcceptUs } = usage.queue();
      return {
        tiers: redis?.breaker.state === "closed" ? ["journal", "redis", database.kind] : [database.kind],
        queuedRecords: unarchived,
        lagMs: oldestAcceptUs === undefined ? undefined : Math.max(0, clock.now() - oldestAcceptUs / 1000),
        journalOnlyRecords: recovery.condition().localOnly,
        quarantinedRecords: journal.condition().quarantined,
        archiving: tier?.archiver.condition().leading ?? false,
      };
    },
    journal: journalComponent(journal, recovery),
    append: appends.append,
  };
}

interface NewKey {
  readonly file: string;
  readonly publicKey: Uint8Array;
  readonly shared: boolean;
  readonly hasRecords: boolean;
}

/** A key that is made although there are records takes the place of a lost one, or is not the one of the other instances. */
function tellOfNewKey({ file, publicKey, shared, hasRecords }: NewKey, log: Log): void {
  const fields = { file, publicKey: Buffer.from(publicKey).toString("base64") };
  const advice = shared ? "; AUDIT_SIGNING_KEY can give all instances the same" : "";
  const made = "made a key to sign audit checkpoints with";
  if (!hasRecords) log.info(fields, `${made}${advice}`);
  else {
    log.warn(
      fields,
      `the signing key is missing and the audit log is not empty: ${made}, and earlier checkpoints were signed by another key${advice}`,
    );
  }
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function openQueue(options: AuditQueueParts) {
  const { startAuditQueue } = await import("./audit-queue.ts");
  return startAuditQueue(options);
}

/** Postgres keeps its indexes itself. */
async function openIndex({ database, parts }: AuditParts, growth: Growth, log: Log): Promise<SqliteIndex | undefined> {
  if (database.kind !== "sqlite") return undefined;
  const { createSqliteIndex } = await import("../audit/search/sqlite-index.ts");
  return parts.adopt(createSqliteIndex({ database, growth, log }), (it) => it.close());
}

/** Without limits nothing is ever dropped. */
async function openRetention(
  { config, database, parts }: AuditParts,
  archive: Archive,
  index: SqliteIndex | undefined,
  log: Log,
): Promise<Retention | undefined> {
  const settings = config.audit.retention;
  if (settings.maxAgeMs === undefined && settings.maxRecords === undefined) return undefined;
  const [{ startRetention }, { createSqlRetention }] = await Promise.all([
    import("../audit/retention/retention.ts"),
    import("../audit/retention/sql-retention.ts"),
  ]);
  const store = createSqlRetention({ database, ...(index && { forgetDropped: index.forgetDropped }) });
  return parts.adopt(startRetention({ archive, store, settings, clock: systemClock, log }), (it) => it.close());
}

interface Watchers {
  readonly barrier: Barrier;
  readonly recovery: Recovery;
  readonly intake: Intake;
  readonly log: Log;
}

/** Redis may have lost what was queued whenever it is another one, and SQL is to have it while Redis is away. */
function watchForLoss(
  { client, breaker }: NonNullable<AuditParts["redis"]>,
  { barrier, recovery, intake, log }: Watchers,
  parts: AsyncDisposableStack,
): void {
  // The primaries of a cluster take turns; where there is one, coming back to it means that another was in its place.
  const known = new Set<string>();
  parts.defer(
    client.onConnected((runId) => {
      if (known.size > 0 && !known.has(runId)) {
        // In a cluster this may be one that was only not needed before; what it lost, if it is the queue's, is seen there.
        if (client.mode === "cluster") recovery.suspectLoss();
        else barrier.suspectLoss();
      }
      if (client.mode !== "cluster") known.clear();
      known.add(runId);
      back();
    }),
  );
  parts.defer(
    breaker.onStateChange((state) => {
      if (state === "open") barrier.suspectLoss();
      else if (state === "closed") {
        recovery.tierBack();
        back();
      }
    }),
  );

  /** Should Redis go away again, the next time will do. */
  function back(): void {
    intake
      .queueBack()
      .catch((error: unknown) => log.debug({ err: error }, "the audit queue was not told of its gaps yet"));
  }
}

function journalComponent(journal: Journal, recovery: Recovery): Component {
  return {
    name: "journal",
    kind: "file",
    check: async () => {
      const { lastError, quarantined } = journal.condition();
      if (lastError !== undefined) throw new Error(lastError.message);
      const { localOnly, lastError: unemptied } = recovery.condition();
      if (localOnly > 0)
        return { degraded: `${localOnly} audit records are in the journal alone: neither Redis nor SQL took them` };
      if (unemptied !== undefined) return { degraded: `the journal is not emptied: ${unemptied.message}` };
      return quarantined > 0
        ? { degraded: `${quarantined} damaged audit records were set aside; see the log` }
        : undefined;
    },
    whenUnwell: "audit records are kept only while SQL answers, and not at all when it does not",
  };
}
