import { randomInt } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { AuditFilterSchema } from "../../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { Fields } from "../../infra/fields.ts";
import { createPauses } from "../../infra/pauses.ts";
import { type Filter, filterOf, serializeFilter } from "../search/filter.ts";
import {
  CONSUMER_KNOWN_MS,
  GroupDiffersError,
  GroupNotFoundError,
  type Groups,
  type Joined,
  type JoinOrder,
  type Member,
} from "./groups.ts";
import { claimDeliveries, requireOwner } from "./sql-groups-claim.ts";
import { readCondition } from "./sql-groups-condition.ts";
import { buryOverdue, readDeadLetters, requeueDeadLetters } from "./sql-groups-dead-letters.ts";
import { bury, isOneOfPairs, lockGroup, pairs, type RefRow, refOf } from "./sql-groups-rows.ts";

export interface SqlGroupsOptions {
  readonly database: Database;
  readonly clock: Clock;
}

/** Where the tokens of a group begin, so that a delivery_id of one group is not taken for one of another. */
const FIRST_TOKENS = 2 ** 40;
/** How many leaves are looked at in one statement for the first that is kept. */
const SPAN = 20_000;
const MATCHES_ALL = serializeFilter(filterOf(new Fields(), "filter", undefined));

/** Groups over SQL: the same statements on both dialects but for the lists of numbers. */
export function createSqlGroups({ database, clock }: SqlGroupsOptions): Groups {
  const { kind } = database;

  async function join(order: JoinOrder): Promise<Joined> {
    const found = await exists(order.group);
    const first = !found && order.start === "oldest" ? await firstKept() : null;
    return database.transaction(async (tx) => {
      const now = clock.now();
      const created = !found && (await create(tx, order, first, now));
      const group = await lockGroup(kind, tx, order.group);
      if (group === undefined) throw new GroupNotFoundError(order.group);
      const filter = readFilter(group.filter);
      const differs = order.filter !== undefined && textOf(readFilter(order.filter)) !== textOf(filter);
      if (differs) throw new GroupDiffersError(order.group);
      const [before] = await tx.query<{ owner: string | null }>(
        "SELECT owner FROM audit_consumer WHERE group_name = $1 AND name = $2",
        [order.group, order.consumer],
      );
      await tx.query(
        `INSERT INTO audit_consumer (group_name, name, owner, seen_ms) VALUES ($1, $2, $3, $4)
          ON CONFLICT (group_name, name) DO UPDATE SET owner = excluded.owner, seen_ms = excluded.seen_ms`,
        [order.group, order.consumer, order.owner, now],
      );
      // Names that the server gave are never used again.
      await tx.query("DELETE FROM audit_consumer WHERE group_name = $1 AND seen_ms < $2", [
        order.group,
        now - CONSUMER_KNOWN_MS,
      ]);
      const replaced = before !== undefined && before.owner !== null;
      return { created, replaced, filter };
    });
  }

  async function exists(group: string): Promise<boolean> {
    return (await database.query("SELECT 1 AS one FROM audit_group WHERE name = $1", [group])).length > 0;
  }

  /** False when somebody else was first. */
  async function create(tx: SqlSession, order: JoinOrder, first: number | null, now: number): Promise<boolean> {
    const made = await tx.query(
      `INSERT INTO audit_group (name, filter, next_leaf, last_token, created_ms)
        VALUES ($1, $2, COALESCE($3, (SELECT size FROM audit_head WHERE id = 1)), $4, $5)
        ON CONFLICT (name) DO NOTHING RETURNING name`,
      [order.group, order.filter ?? new Uint8Array(), first, randomInt(1, FIRST_TOKENS), now],
    );
    return made.length > 0;
  }

  /** Retention may have dropped any number at the front, so this is not one statement. */
  async function firstKept(): Promise<number> {
    const [head] = await database.query<{ size: number }>("SELECT size FROM audit_head WHERE id = 1");
    const size = head?.size ?? 0;
    const pause = createPauses();
    for (let from = 0; from < size; from += SPAN) {
      await pause();
      const [row] = await database.query<{ leaf_index: number | null }>(
        `SELECT MIN(leaf_index) AS leaf_index FROM audit_record
          WHERE leaf_index >= $1 AND leaf_index < $2 AND leaf IS NOT NULL`,
        [from, from + SPAN],
      );
      if (row !== undefined && row.leaf_index !== null) return row.leaf_index;
    }
    return size;
  }

  return {
    exists,
    join,
    async prospect(member) {
      // One statement, because every open stream asks this all the time.
      const [row] = await database.query<{
        next_leaf: number;
        size: number;
        owner: string | null;
        due_ms: number | null;
      }>(
        `SELECT g.next_leaf, h.size, c.owner,
            (SELECT MIN(due_ms) FROM audit_delivery WHERE group_name = $1) AS due_ms
          FROM audit_group g JOIN audit_head h ON h.id = 1
          LEFT JOIN audit_consumer c ON c.group_name = g.name AND c.name = $2
          WHERE g.name = $1`,
        [member.group, member.consumer],
      );
      if (row === undefined) throw new GroupNotFoundError(member.group);
      if (row.owner !== member.owner) await requireOwner(database, member);
      return { unread: row.size > row.next_leaf, nextDueMs: row.due_ms ?? undefined };
    },
    claim: (member, order) => claimDeliveries(database, member, order, clock.now()),
    async ack(group, refs) {
      const done = await database.write<RefRow>(
        `DELETE FROM audit_delivery WHERE group_name = $1 AND ${isOneOfPairs(kind, 2)} RETURNING leaf_index, token`,
        [group, pairs(refs)],
      );
      return done.map(refOf);
    },
    nack: (group, refs, { delayMs, error, dead }) =>
      database.transaction(async (tx) => {
        const now = clock.now();
        await lockGroup(kind, tx, group);
        const back = await tx.query<RefRow & { attempt: number; max_deliveries: number }>(
          `UPDATE audit_delivery SET token = -token, holder = NULL, due_ms = $3, last_error = $4
            WHERE group_name = $1 AND ${isOneOfPairs(kind, 2)}
            RETURNING leaf_index, -token AS token, attempt, max_deliveries`,
          [group, pairs(refs), now + delayMs, error],
        );
        const doomed = back.filter((row) => dead || row.attempt >= row.max_deliveries);
        const leafIndexes = doomed.map((row) => row.leaf_index);
        await bury(kind, tx, group, leafIndexes, now);
        return back.map(refOf);
      }),
    async extend(member, refs, deadlineMs) {
      const extended = await database.write<RefRow>(
        `UPDATE audit_delivery SET due_ms = $3
          WHERE group_name = $1 AND ${isOneOfPairs(kind, 2)} AND holder = $4 RETURNING leaf_index, token`,
        [member.group, pairs(refs), deadlineMs, member.owner],
      );
      return extended.map(refOf);
    },
    async touch(member, activeMs) {
      await touch(database.write, member, activeMs, "owner");
    },
    leave: (member, activeMs, unsentToken) =>
      database.transaction(async (tx) => {
        const now = clock.now();
        await lockGroup(kind, tx, member.group);
        const freed = await tx.query(
          `UPDATE audit_delivery SET holder = NULL, due_ms = $3,
              attempt = attempt - (CASE WHEN token = $4 THEN 1 ELSE 0 END)
            WHERE group_name = $1 AND holder = $2 RETURNING leaf_index`,
          [member.group, member.owner, now, unsentToken ?? 0],
        );
        await touch(tx.query, member, activeMs, "NULL");
        // What this leaves is buried by whoever claims or looks next.
        await buryOverdue(kind, tx, member.group, now);
        return freed.length > 0;
      }),
    condition: (group) => readCondition(database, group, clock.now()),
    deadLetters: (group, after, limits) => readDeadLetters(database, group, after, limits, clock.now()),
    requeue: (order) => requeueDeadLetters(database, order, clock),
  };

  async function touch(
    write: SqlSession["query"],
    { group, consumer, owner }: Member,
    activeMs: number | undefined,
    newOwner: "owner" | "NULL",
  ): Promise<void> {
    await write(
      `UPDATE audit_consumer SET seen_ms = $4, active_ms = COALESCE(CAST($5 AS BIGINT), active_ms), owner = ${newOwner}
        WHERE group_name = $1 AND name = $2 AND owner = $3`,
      [group, consumer, owner, clock.now(), activeMs ?? null],
    );
  }
}

/** Undefined: every record. */
function readFilter(bytes: Uint8Array): Filter | undefined {
  const filter = filterOf(new Fields(), "filter", fromBinary(AuditFilterSchema, bytes));
  return serializeFilter(filter) === MATCHES_ALL ? undefined : filter;
}

function textOf(filter: Filter | undefined): string {
  return filter === undefined ? MATCHES_ALL : serializeFilter(filter);
}
