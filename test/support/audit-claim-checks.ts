import { equals } from "@bufbuild/protobuf";
import { AuditEntrySchema, type AuditLeaf, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { ArchivedLeaf, Fault } from "./audit-checker.ts";
import {
  type Claims,
  createSequenceSet,
  type RequestClaim,
  type ReviewClaim,
  type SequenceSet,
} from "./audit-claims.ts";
import { entryOf, requestEntryOf } from "./audit-entries.ts";

export type Found = (fault: Fault, what: string) => void;

/** Records of one kind of sender. */
export interface Check {
  readonly sent: number;
  readonly acked: number;
  readonly archived: number;
  readonly archivedUnacked: number;
  leaf(row: ArchivedLeaf, leaf: AuditLeaf, found: Found): void;
  finish(found: Found): void;
}

export const idOf = ({ producer, sequence }: { producer: string; sequence: number }) => `${producer}/${sequence}`;

export function producerCheck(claim: Claims["producers"][number]): Check {
  const { producer } = claim;
  const sent = createSequenceSet(claim.sent);
  const acked = createSequenceSet(claim.acked);
  const archived = createSequenceSet();
  return {
    sent: sent.size,
    acked: acked.size,
    get archived() {
      return archived.size;
    },
    get archivedUnacked() {
      return count(archived, (sequence) => !acked.has(sequence));
    },
    leaf({ sequence }, { entry }, found) {
      const id = idOf({ producer, sequence });
      if (!sent.has(sequence)) found("stranger", `${id} was never sent`);
      if (!archived.add(sequence)) found("doubled", `${id} is archived twice`);
      if (entry === undefined || !equals(AuditEntrySchema, entry, entryOf(producer, sequence))) {
        found("altered", `${id} is archived with another content than was sent`);
      }
    },
    finish(found) {
      for (const sequence of members(acked)) {
        const id = idOf({ producer, sequence });
        if (!archived.has(sequence)) found("lost", `${id} was acked and is not archived`);
        if (!sent.has(sequence)) found("bad ack", `${id} was acked and never sent`);
      }
    },
  };
}

/** Records that the server named: known by their content, since the name may have been lost with the ack. */
export function requestCheck(claims: readonly RequestClaim[]): Check {
  const byRequest = new Map(claims.map((claim) => [claim.requestId, claim]));
  const archived = new Map<string, string>();
  let archivedUnacked = 0;
  const records = (some: readonly RequestClaim[]) => some.reduce((total, claim) => total + claim.records, 0);
  return {
    sent: records(claims),
    acked: records(claims.filter(({ ids }) => ids !== undefined)),
    get archived() {
      return archived.size;
    },
    get archivedUnacked() {
      return archivedUnacked;
    },
    leaf(row, { entry }, found) {
      const id = idOf(row);
      const place = entry?.resource?.id ?? "";
      const [, requestId = "", digits = ""] = /^(.*)#(\d+)$/.exec(place) ?? [];
      const claim = byRequest.get(requestId);
      const at = Number(digits);
      if (claim === undefined || at >= claim.records) {
        found("stranger", `${id}, which is ${place}, was sent by nobody`);
        return;
      }
      const earlier = archived.get(place);
      if (earlier !== undefined) found("doubled", `${place} is archived as ${earlier} and as ${id}`);
      archived.set(place, id);
      if (claim.ids === undefined) archivedUnacked++;
      else if (claim.ids[at] !== id)
        found("bad ack", `${place} was acked as ${claim.ids[at]} and is archived as ${id}`);
      if (entry === undefined || !equals(AuditEntrySchema, entry, requestEntryOf(requestId, at))) {
        found("altered", `${id} is archived with another content than was sent`);
      }
    },
    finish(found) {
      for (const { requestId, records: count, ids } of claims) {
        for (let at = 0; ids !== undefined && at < count; at++) {
          if (!archived.has(`${requestId}#${at}`)) found("lost", `${requestId}#${at} was acked and is not archived`);
        }
      }
    },
  };
}

/** The producer of the records that reviews leave behind. */
export const REVIEWS = "@review";

/** Each decision leaves one record behind, and the record that it is about approved. */
export function reviewCheck(claims: readonly ReviewClaim[]) {
  const claimed = new Set(claims.map(({ id }) => id));
  const reviewedBy = new Map<string, string>();
  const approved = new Set<string>();
  return {
    get archived() {
      return reviewedBy.size;
    },
    record({ status, ...row }: ArchivedLeaf) {
      if (status === AuditStatus.APPROVED) approved.add(idOf(row));
    },
    leaf(row: ArchivedLeaf, { entry }: AuditLeaf, found: Found) {
      const about = entry?.resource?.id ?? "";
      if (!claimed.has(about)) found("stranger", `${idOf(row)} is a review of ${about}, which nobody reviewed`);
      const earlier = reviewedBy.get(about);
      if (earlier !== undefined)
        found("doubled", `the review of ${about} is archived as ${earlier} and as ${idOf(row)}`);
      reviewedBy.set(about, idOf(row));
      if (entry?.action !== "audit.review.approve") found("altered", `the approval of ${about} is a ${entry?.action}`);
    },
    finish(found: Found) {
      for (const { id, decided } of claims) {
        if (decided && !reviewedBy.has(id)) found("lost", `the review of ${id} was acked and is not archived`);
        if (approved.has(id) !== reviewedBy.has(id))
          found("altered", `${id} is not in the state that its review left it`);
      }
      for (const id of approved) if (!claimed.has(id)) found("stranger", `${id} was approved by nobody`);
    },
  };
}

function* members(set: SequenceSet): Generator<number> {
  for (const [at, byte] of set.bits.entries()) {
    if (byte === 0) continue;
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield at * 8 + bit;
  }
}

function count(set: SequenceSet, wanted: (sequence: number) => boolean): number {
  let found = 0;
  for (const sequence of members(set)) if (wanted(sequence)) found++;
  return found;
}
