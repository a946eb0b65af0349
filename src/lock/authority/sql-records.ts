import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import type { GrantEnd, LockRecord } from "../record/grant.ts";

export type RecordRow = {
  name: string;
  token: number;
  owner: string;
  purpose: string;
  caller: string;
  instance_id: string;
  stream_id: string;
  request_id: string;
  request_meaning: string;
  ttl_ms: number;
  acquire_ms: number;
  expire_ms: number;
  renewals: number;
  ended: GrantEnd;
  ended_ms: number;
  streak: number;
  wanted_until_ms: number;
  rival: string;
  rival_until_ms: number;
};

interface Column<Value> {
  readonly name: keyof RecordRow;
  readonly from: (record: LockRecord) => Value;
}

const TEXTS: readonly Column<string>[] = [
  { name: "name", from: ({ grant }) => grant.name },
  { name: "owner", from: ({ grant }) => grant.owner },
  { name: "purpose", from: ({ grant }) => grant.purpose },
  { name: "caller", from: ({ grant }) => grant.caller },
  { name: "instance_id", from: ({ grant }) => grant.instanceId },
  { name: "stream_id", from: ({ grant }) => grant.streamId },
  { name: "request_id", from: ({ grant }) => grant.requestId },
  { name: "request_meaning", from: ({ grant }) => grant.requestMeaning },
  { name: "ended", from: ({ grant }) => grant.end },
  { name: "rival", from: ({ rival }) => rival },
];

const NUMBERS: readonly Column<number>[] = [
  { name: "token", from: ({ grant }) => grant.token },
  { name: "ttl_ms", from: ({ grant }) => grant.ttlMs },
  { name: "acquire_ms", from: ({ grant }) => grant.acquireMs },
  { name: "expire_ms", from: ({ grant }) => grant.expireMs },
  { name: "renewals", from: ({ grant }) => grant.renewals },
  { name: "ended_ms", from: ({ grant }) => grant.endMs },
  { name: "streak", from: ({ streak }) => streak },
  { name: "wanted_until_ms", from: ({ wantedUntilMs }) => wantedUntilMs },
  { name: "rival_until_ms", from: ({ rivalUntilMs }) => rivalUntilMs },
];

const COLUMNS: readonly Column<SqlValue>[] = [...TEXTS, ...NUMBERS];

export const RECORD_COLUMNS = COLUMNS.map(({ name }) => name).join(", ");

const INTO = `INSERT INTO lock_record (${RECORD_COLUMNS})`;
const OR_CHANGE = `ON CONFLICT (name) DO UPDATE SET ${COLUMNS.filter(({ name }) => name !== "name")
  .map(({ name }) => `${name} = excluded.${name}`)
  .join(", ")}`;

const PUT_ONE = `${INTO} VALUES (${COLUMNS.map((_, at) => `$${at + 1}`).join(", ")}) ${OR_CHANGE}`;
const PUT_ALL = `${INTO} SELECT * FROM unnest(${COLUMNS.map(
  (_, at) => `$${at + 1}::${at < TEXTS.length ? "text" : "bigint"}[]`,
).join(", ")}) ${OR_CHANGE}`;

export async function putRecords(
  kind: Database["kind"],
  tx: SqlSession,
  records: readonly LockRecord[],
): Promise<void> {
  if (records.length === 0) return;
  if (kind === "sqlite") {
    const rows = records.map((record) => COLUMNS.map(({ from }) => from(record)));
    await tx.each(PUT_ONE, rows);
    return;
  }
  await tx.query(PUT_ALL, [
    ...TEXTS.map(({ from }) => textArray(records.map(from))),
    ...NUMBERS.map(({ from }) => bigintArray(records.map(from))),
  ]);
}

export function recordOf(row: RecordRow): LockRecord {
  return {
    grant: {
      ...{ name: row.name, token: row.token, owner: row.owner, purpose: row.purpose, caller: row.caller },
      ...{ instanceId: row.instance_id, streamId: row.stream_id },
      ...{ requestId: row.request_id, requestMeaning: row.request_meaning },
      ...{ ttlMs: row.ttl_ms, acquireMs: row.acquire_ms, expireMs: row.expire_ms, renewals: row.renewals },
      ...{ end: row.ended, endMs: row.ended_ms },
    },
    ...{ streak: row.streak, wantedUntilMs: row.wanted_until_ms },
    ...{ rival: row.rival, rivalUntilMs: row.rival_until_ms },
  };
}
