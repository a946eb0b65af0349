import type { AuditRecord } from "../../gen/holdfast/v1/audit_pb.js";
import type { Database, SqlSession } from "../../infra/database.ts";
import type { KeptRecord } from "../archive/leaves.ts";
import { type LeafSize, numberList, readLeaves, readRecords, withinBytes } from "../archive/sql-leaves.ts";
import { archivedRecord } from "../record/replies.ts";
import type { Filter } from "../search/filter.ts";
import { matches, statusAsAppended } from "../search/filter-match.ts";
import type { DeliveryRef } from "./deliveries.ts";
import { type Claimed, type ClaimOrder, ConsumerReplacedError, GroupNotFoundError, type Member } from "./groups.ts";
import { buryExhausted, type GroupRow, isOneOfPairs, lockGroup, pairs, refOf } from "./sql-groups-rows.ts";

/** Leaves that one claim looks at for a group that does not want all of them. */
const FILTERED_LEAVES = 1_000;

type DueRow = LeafSize & { readonly token: number; readonly attempt: number; readonly max_deliveries: number };

/** What a claim found. Records are decoded after the commit where nothing had to be known of them before. */
interface Found {
  readonly rows: readonly { readonly record: KeptRecord; readonly attempt: number }[];
  readonly decoded?: ReadonlyMap<number, AuditRecord>;
  readonly recovered: boolean;
  readonly more: boolean;
}

const DUE_ROWS = `SELECT d.leaf_index, d.token, d.attempt, d.max_deliveries, LENGTH(r.leaf) AS bytes
  FROM audit_delivery d JOIN audit_record r ON r.leaf_index = d.leaf_index`;

/** A claim in one transaction that holds the group. */
export async function claimDeliveries(
  database: Database,
  member: Member,
  order: ClaimOrder,
  now: number,
): Promise<Claimed> {
  const { kind } = database;
  const deadlineMs = now + order.ackTimeoutMs;
  const { token, found } = await database.transaction(async (tx) => {
    const group = await lockGroup(kind, tx, member.group);
    if (group === undefined) throw new GroupNotFoundError(member.group);
    // After the lock, in a statement of its own: it may have been waited for while somebody took the name.
    await requireOwner(tx, member);
    const claim: Claim = { kind, tx, member, order, group, token: group.last_token + 1, now, deadlineMs };
    return { token: claim.token, found: (await claimDue(claim)) ?? (await claimUnread(claim)) };
  });
  const { rows, decoded, recovered, more } = found;
  return {
    token: rows.length === 0 ? 0 : token,
    deadlineMs,
    deliveries: rows.map(({ record, attempt }) => ({
      record: decoded?.get(record.leafIndex) ?? archivedRecord(record),
      ref: { leafIndex: record.leafIndex, token },
      attempt,
    })),
    recovered,
    more,
  };
}

/** Throws if the name has gone to another stream. */
export async function requireOwner(tx: Pick<SqlSession, "query">, member: Member): Promise<void> {
  const [row] = await tx.query<{ owner: string | null }>(
    "SELECT owner FROM audit_consumer WHERE group_name = $1 AND name = $2",
    [member.group, member.consumer],
  );
  if (row !== undefined && row.owner !== null && row.owner !== member.owner) throw new ConsumerReplacedError(member);
}

interface Claim {
  readonly kind: Database["kind"];
  readonly tx: SqlSession;
  readonly member: Member;
  readonly order: ClaimOrder;
  readonly group: GroupRow;
  readonly token: number;
  readonly now: number;
  readonly deadlineMs: number;
}

/** Undefined when nothing is due again. */
async function claimDue(claim: Claim): Promise<Found | undefined> {
  const { kind, tx, member, order, now } = claim;
  const own = order.recoverAfter === undefined ? [] : await ownRows(claim, order.recoverAfter);
  const due = own.length > 0 ? own : await dueRows(claim);
  if (due.length === 0) return undefined;
  const [exhausted = [], deliverable = []] = partition(due, (row) => row.attempt >= row.max_deliveries);
  await buryExhausted(kind, tx, member.group, exhausted.map(refOf), now);
  const taken = await takeAgain(claim, withinBytes(deliverable, order.room.bytes).map(refOf));
  const records = await readRecords(kind, tx, [...taken.keys()]);
  const rows = [...records.values()]
    .map((record) => ({ record, attempt: taken.get(record.leafIndex) ?? 1 }))
    .sort((a, b) => a.record.leafIndex - b.record.leafIndex);
  if (rows.length > 0) await moveOn(claim, claim.group.next_leaf);
  return { rows, recovered: own.length === 0, more: true };
}

function ownRows({ tx, member, order }: Claim, recoverAfter: number): Promise<DueRow[]> {
  return tx.query<DueRow>(
    `${DUE_ROWS} WHERE d.group_name = $1 AND d.consumer = $2 AND d.holder IS NOT NULL AND (d.holder <> $3 OR d.token > $4)
      ORDER BY d.leaf_index LIMIT $5`,
    [member.group, member.consumer, member.owner, recoverAfter, order.room.leaves],
  );
}

function dueRows({ tx, member, order, now }: Claim): Promise<DueRow[]> {
  return tx.query<DueRow>(
    `${DUE_ROWS} WHERE d.group_name = $1 AND d.due_ms <= $2 ORDER BY d.due_ms, d.leaf_index LIMIT $3`,
    [member.group, now, order.room.leaves],
  );
}

/** Takes what is still as it was read: an ack or an extension may have come before. Returns the attempts by leaf. */
async function takeAgain(claim: Claim, refs: readonly DeliveryRef[]): Promise<ReadonlyMap<number, number>> {
  if (refs.length === 0) return new Map();
  const { kind, tx, member, order, token, deadlineMs } = claim;
  const taken = await tx.query<{ leaf_index: number; attempt: number }>(
    `UPDATE audit_delivery SET token = $3, attempt = attempt + 1, max_deliveries = $4, consumer = $5, holder = $6,
        due_ms = $7, last_error = ''
      WHERE group_name = $1 AND ${isOneOfPairs(kind, 2)} RETURNING leaf_index, attempt`,
    [member.group, pairs(refs), token, order.maxDeliveries, member.consumer, member.owner, deadlineMs],
  );
  return new Map(taken.map((row) => [row.leaf_index, row.attempt]));
}

/** The records from the group's cursor on. Those it does not want are passed over without a trace. */
async function claimUnread(claim: Claim): Promise<Found> {
  const { tx, order, group } = claim;
  const { filter, room } = order;
  const page = await readLeaves(tx, group.next_leaf, {
    leaves: filter === undefined ? room.leaves : FILTERED_LEAVES,
    bytes: room.bytes,
  });
  const decoded = new Map<number, AuditRecord>();
  const wanted = page.records.filter((record) => filter === undefined || isWanted(filter, record, decoded));
  const taken = wanted.slice(0, room.leaves);
  const last = taken.at(-1);
  const next = last !== undefined && taken.length < wanted.length ? last.leafIndex + 1 : page.next;
  if (taken.length > 0) await insert(claim, taken);
  if (next > group.next_leaf) await moveOn(claim, next);
  return {
    rows: taken.map((record) => ({ record, attempt: 1 })),
    decoded,
    recovered: true,
    more: !page.end || next < page.next,
  };
}

function isWanted(filter: Filter, kept: KeptRecord, decoded: Map<number, AuditRecord>): boolean {
  const record = archivedRecord(kept);
  const { entry } = record;
  if (entry === undefined) return false;
  const { producer, occurUs, leafIndex } = kept;
  if (!matches(filter, { producer, occurUs, status: statusAsAppended(entry), entry })) return false;
  decoded.set(leafIndex, record);
  return true;
}

async function insert(claim: Claim, taken: readonly KeptRecord[]): Promise<void> {
  const { kind, tx, member, order, token, deadlineMs } = claim;
  await tx.query(
    `INSERT INTO audit_delivery
        (group_name, leaf_index, token, attempt, max_deliveries, consumer, holder, due_ms, last_error)
      SELECT CAST($1 AS TEXT), leaf.value, CAST($3 AS BIGINT), 1, CAST($4 AS BIGINT), CAST($5 AS TEXT), CAST($6 AS TEXT),
        CAST($7 AS BIGINT), '' FROM (${numberList(kind, 2)}) AS leaf`,
    [
      member.group,
      JSON.stringify(taken.map(({ leafIndex }) => leafIndex)),
      token,
      order.maxDeliveries,
      member.consumer,
      member.owner,
      deadlineMs,
    ],
  );
}

async function moveOn({ tx, member, token }: Claim, nextLeaf: number): Promise<void> {
  await tx.query("UPDATE audit_group SET next_leaf = $2, last_token = $3 WHERE name = $1", [
    member.group,
    nextLeaf,
    token,
  ]);
}

function partition<T>(all: readonly T[], isFirst: (one: T) => boolean): readonly T[][] {
  const first: T[] = [];
  const second: T[] = [];
  for (const one of all) (isFirst(one) ? first : second).push(one);
  return [first, second];
}
