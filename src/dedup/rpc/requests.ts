import { toBinary } from "@bufbuild/protobuf";
import { ValueSchema } from "../../gen/holdfast/v1/cache_pb.js";
import {
  type DedupServiceClaimRequest,
  type DedupServiceCompleteRequest,
  type DedupServiceListRequest,
  type DedupServiceReleaseRequest,
  DedupState,
} from "../../gen/holdfast/v1/dedup_pb.js";
import { textFault } from "../../infra/fields.ts";
import { namedRequest } from "../../infra/named-request.ts";
import { readNamedToken } from "../../infra/token.ts";
import type { ListPlace, ListQuery } from "../list/listing.ts";
import type { ClaimState } from "../record/claim.ts";
import type { ClaimOrder, CompleteOrder, ReleaseOrder } from "../record/decide.ts";
import { DedupFields, LIMITS } from "./fields.ts";

const TTL_MS = 86_400_000;
const LEASE_MS = 60_000;

/** What requests mean. Throws, with all that is wrong with one. */

export function claimOrderOf(request: DedupServiceClaimRequest, caller: string): ClaimOrder {
  const fields = new DedupFields();
  const id = fields.subject(request);
  const ttlMs = fields.seconds("ttl", request.ttl, LIMITS.ttlMs) ?? TTL_MS;
  const leaseMs = fields.seconds("lease_ttl", request.leaseTtl, LIMITS.leaseMs) ?? LEASE_MS;
  const { completed: atOnce } = request;
  if (atOnce && request.leaseTtl !== undefined) fields.refuse("lease_ttl", "must be unset with completed");
  const owner = fields.owner(request.owner) || caller;
  const requestId = fields.requestId(request.requestId);
  fields.done();
  // Of two callers who hit upon the same id only one made the claim.
  const meaning = () => [caller, owner, String(ttlMs), String(leaseMs), String(atOnce)];
  return { id, ttlMs, leaseMs, atOnce, owner, request: namedRequest(requestId, "Claim", meaning) };
}

export function completeOrderOf(request: DedupServiceCompleteRequest): CompleteOrder {
  const fields = new DedupFields();
  const id = fields.subject(request);
  const token = fields.claimToken(request.claimToken);
  const { result } = request;
  const bytes = result === undefined ? 0 : fields.result(result);
  const ttlMs = fields.seconds("ttl", request.ttl, LIMITS.ttlMs);
  fields.done();
  return { id, token, ttlMs, result: result && { value: toBinary(ValueSchema, result), bytes } };
}

export function releaseOrderOf(request: DedupServiceReleaseRequest): ReleaseOrder {
  const fields = new DedupFields();
  const id = fields.subject(request);
  const token = fields.claimToken(request.claimToken);
  fields.done();
  return { id, token, forgetCompleted: request.forgetCompleted };
}

/** The question is what a page token is good for. */
export function listQueryOf(request: DedupServiceListRequest): { query: ListQuery; question: string } {
  const fields = new DedupFields();
  const namespace = fields.namespace(request.namespace);
  const { prefix, owner } = request;
  fields.text("prefix", prefix, LIMITS.keyBytes, true);
  const state = stateIn(fields, request.state);
  fields.owner(owner);
  const limit = fields.pageSize(request.pageSize);
  const question = `dedup List ${JSON.stringify([namespace, prefix, state ?? null, owner])}`;
  const after = placeIn(fields, question, request.pageToken);
  fields.done();
  return { query: { namespace, prefix, state, owner, limit, after }, question };
}

const STATES: Readonly<Record<DedupState, ClaimState | undefined>> = {
  [DedupState.UNSPECIFIED]: undefined,
  [DedupState.IN_PROGRESS]: "in_progress",
  [DedupState.ABANDONED]: "abandoned",
  [DedupState.COMPLETED]: "completed",
};

function stateIn(fields: DedupFields, state: DedupState): ClaimState | undefined {
  if (!(state in DedupState)) fields.refuse("state", "is not a state that this server knows");
  return STATES[state];
}

const PLACE_KINDS = ["key", "checksum"] as const;

export const placeNumber = ({ kind }: ListPlace): number => PLACE_KINDS.indexOf(kind);

function placeIn(fields: DedupFields, question: string, token: string): ListPlace | undefined {
  if (token === "") return undefined;
  const { place, name: text = "" } = readNamedToken(question, token, 1) ?? {};
  const kind = PLACE_KINDS[place?.[0] ?? -1];
  if (kind !== undefined && textFault(text, LIMITS.keyBytes) === undefined) return { kind, text };
  fields.refuse("page_token", "is not a next_page_token of a listing with the same namespace, prefix, state and owner");
  return undefined;
}
