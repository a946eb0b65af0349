import type { SqlValue } from "../../infra/database.ts";
import type { Claim, ClaimId } from "../record/claim.ts";

export type ClaimRow = {
  namespace: string;
  kind: number;
  id: string;
  token: number;
  status: number;
  owner: string;
  attempt: number;
  ttl_ms: number;
  claim_ms: number;
  lease_ms: number;
  complete_ms: number | null;
  expire_ms: number;
  request_id: string;
  request_meaning: string;
  at_once: number;
  result_bytes: number | null;
  copyable: number;
};

export const COLUMNS = [
  ...["namespace", "kind", "id", "token", "status", "owner", "attempt", "ttl_ms", "claim_ms", "lease_ms"],
  ...["complete_ms", "expire_ms", "request_id", "request_meaning", "at_once", "result_bytes", "copyable"],
] as const;

/** In this order listings go. */
export const KINDS = { key: 1, checksum: 2 } as const;
export const STATUSES = { in_progress: 1, completed: 2, released: 3 } as const;

export const keyValues = ({ namespace, kind, text }: ClaimId): [string, number, string] => [
  namespace,
  KINDS[kind],
  text,
];

export function claimOf(row: ClaimRow): Claim {
  const { request_id: id, request_meaning: meaning } = row;
  return {
    id: { namespace: row.namespace, kind: row.kind === KINDS.key ? "key" : "checksum", text: row.id },
    token: row.token,
    status: statusOf(row.status),
    ...{ owner: row.owner, attempt: row.attempt, ttlMs: row.ttl_ms, claimMs: row.claim_ms, leaseEndMs: row.lease_ms },
    ...{ completeMs: row.complete_ms ?? undefined, expireMs: row.expire_ms },
    request: id === "" ? undefined : { id, meaning },
    ...{ atOnce: row.at_once === 1, resultBytes: row.result_bytes ?? undefined, copyable: row.copyable === 1 },
  };
}

function statusOf(number: number): Claim["status"] {
  if (number === STATUSES.completed) return "completed";
  return number === STATUSES.released ? "released" : "in_progress";
}

/** In the order of COLUMNS. */
export function valuesOf(claim: Claim): SqlValue[] {
  const { id, request } = claim;
  return [
    ...[id.namespace, KINDS[id.kind], id.text, claim.token, STATUSES[claim.status], claim.owner, claim.attempt],
    ...[claim.ttlMs, claim.claimMs, claim.leaseEndMs, claim.completeMs ?? null, claim.expireMs],
    ...[request?.id ?? "", request?.meaning ?? "", claim.atOnce ? 1 : 0, claim.resultBytes ?? null],
    claim.copyable ? 1 : 0,
  ];
}
