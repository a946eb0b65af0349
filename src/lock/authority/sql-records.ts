import type { SqlSession, SqlValue } from "../../infra/database.ts";
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

const COLUMNS = [
  ...["name", "token", "owner", "purpose", "caller", "instance_id", "stream_id", "request_id", "request_meaning"],
  ...["ttl_ms", "acquire_ms", "expire_ms", "renewals", "ended", "ended_ms"],
  ...["streak", "wanted_until_ms", "rival", "rival_until_ms"],
];

export const RECORD_COLUMNS = COLUMNS.join(", ");

const PUT = `INSERT INTO lock_record (${RECORD_COLUMNS}) VALUES (${COLUMNS.map((_, at) => `$${at + 1}`).join(", ")})
  ON CONFLICT (name) DO UPDATE SET ${COLUMNS.slice(1)
    .map((column) => `${column} = excluded.${column}`)
    .join(", ")}`;

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

export async function putRecords(tx: SqlSession, records: Iterable<LockRecord>): Promise<void> {
  const rows = Array.from(records, valuesOf);
  if (rows.length > 0) await tx.each(PUT, rows);
}

function valuesOf({ grant, streak, wantedUntilMs, rival, rivalUntilMs }: LockRecord): SqlValue[] {
  return [
    ...[grant.name, grant.token, grant.owner, grant.purpose, grant.caller, grant.instanceId, grant.streamId],
    ...[grant.requestId, grant.requestMeaning],
    ...[grant.ttlMs, grant.acquireMs, grant.expireMs, grant.renewals, grant.end, grant.endMs],
    ...[streak, wantedUntilMs, rival, rivalUntilMs],
  ];
}
