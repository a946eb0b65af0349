import type { Archive } from "../../src/audit/archive/archive.ts";
import { createGrowth, type Growth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import { createSqlLeaves } from "../../src/audit/archive/sql-leaves.ts";
import { createGroupRpcs } from "../../src/audit/groups/group-rpcs.ts";
import type { Claimed, ClaimOrder, Groups, Member } from "../../src/audit/groups/groups.ts";
import { createSqlGroups } from "../../src/audit/groups/sql-groups.ts";
import { createTailRpc } from "../../src/audit/groups/tail-rpc.ts";
import { createLocalBackplane, createLocalHub, type LocalHub } from "../../src/infra/backplane-local.ts";
import type { Clock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import type { MovedClock } from "../support/moved-clock.ts";
import { type KINDS, openArchives, sealed } from "./archives.ts";

/** What one instance has that serves groups and tails. */
export interface GroupInstance {
  readonly database: Database;
  readonly archive: Archive;
  readonly growth: Growth;
  readonly groups: Groups;
  readonly rpcs: ReturnType<typeof createGroupRpcs> & ReturnType<typeof createTailRpc>;
}

export interface GroupInstances extends AsyncDisposable {
  readonly first: GroupInstance;
  /** The same as the first in SQLite, which has one instance only. */
  readonly second: GroupInstance;
  readonly clock: MovedClock;
  readonly where: string;
  /** Another instance over this database, which hears of growth if `hears`. */
  instance(database: Database, hears?: boolean, settled?: (signal: AbortSignal) => Promise<void>): GroupInstance;
  /** Appends this many records, with sequences that go on. */
  append(count: number, entry?: Parameters<typeof sealed>[1]): Promise<void>;
}

export async function openGroups(kind: (typeof KINDS)[number]): Promise<GroupInstances> {
  const archives = await openArchives(kind, 2);
  const { clock, where } = archives;
  const hub = createLocalHub();
  let sequence = 0;
  const instance: GroupInstances["instance"] = (database, hears = true, settled = async () => {}) =>
    openInstance(database, hears ? hub : createLocalHub(), clock, settled);
  const [one, other] = archives.instances;
  const first = instance(one.database);
  return {
    first,
    second: other === undefined ? first : instance(other.database),
    clock,
    where,
    instance,
    async append(count, entry) {
      const records = Array.from({ length: count }, () => sealed({ producer: "p", sequence: ++sequence }, entry));
      await first.archive.append(records, "refuse");
    },
    [Symbol.asyncDispose]: () => archives[Symbol.asyncDispose](),
  };
}

function openInstance(
  database: Database,
  hub: LocalHub,
  clock: Clock,
  settled: (signal: AbortSignal) => Promise<void>,
): GroupInstance {
  const log = createLog({ level: "silent" });
  const growth = createGrowth(createLocalBackplane({ hub }));
  const archive = createSqlArchive({ database, growth, clock, log });
  const groups = createSqlGroups({ database, clock });
  const leaves = createSqlLeaves(database);
  const instanceId = "i-1";
  return {
    database,
    archive,
    growth,
    groups,
    rpcs: {
      ...createGroupRpcs({ groups, growth, settled, clock, instanceId, log, servedBy: database.kind }),
      ...createTailRpc({ archive, leaves, growth, settled, instanceId }),
    },
  };
}

export function member(group: string, consumer: string, owner = `${consumer}-stream`): Member {
  return { group, consumer, owner };
}

/** A claim with room for a hundred, unless it says otherwise. */
export function claimOrder(order: Partial<ClaimOrder> = {}): ClaimOrder {
  return {
    filter: undefined,
    room: { leaves: 100, bytes: 1024 * 1024 },
    ackTimeoutMs: 30_000,
    maxDeliveries: 5,
    recoverAfter: undefined,
    ...order,
  };
}

export function sequencesOf({ deliveries }: Pick<Claimed, "deliveries">): number[] {
  return deliveries.map(({ record }) => Number(record.sequence));
}

export function refsOf({ deliveries }: Claimed) {
  return deliveries.map(({ ref }) => ref);
}
