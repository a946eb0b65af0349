import { create } from "@bufbuild/protobuf";
import {
  type AuditFilter,
  AuditOrder,
  type AuditService,
  AuditServiceListPendingResponseSchema,
  AuditServiceListResponseSchema,
  AuditStatus,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import { Fields } from "../../infra/fields.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import type { Archive } from "../archive/archive.ts";
import { archivedRecord } from "../record/replies.ts";
import { exportRecords, readExport } from "./export.ts";
import { type Filter, filterOf, serializeFilter } from "./filter.ts";
import type { Order, Position, Search } from "./search.ts";

export interface ListRpcsOptions {
  readonly search: Search;
  readonly archive: Pick<Archive, "kind" | "size">;
  /** Resolves when everything that was acknowledged before is archived, as far as this instance can see to it. */
  readonly settled: (signal: AbortSignal) => Promise<{ readonly degraded: boolean }>;
  readonly clock: Clock;
}

interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

/** One listing: all of its pages have the same. */
interface Listing {
  readonly filter: Filter;
  readonly order: Order;
  readonly subject: string;
}

/** The RPCs that find records by what they say. */
export function createListRpcs({
  search,
  archive,
  settled,
  clock,
}: ListRpcsOptions): Required<Pick<Rpcs<typeof AuditService>, "list" | "listPending" | "export">> {
  async function settle(call: CallContext): Promise<void> {
    const { degraded } = await settled(call.signal);
    if (degraded) call.degraded();
    call.servedBy(archive.kind);
  }

  async function pageOf(fields: Fields, { filter, order, subject }: Listing, request: PageRequest, call: CallContext) {
    const limit = fields.pageSize(request.pageSize);
    const after = positionIn(fields, subject, request.pageToken);
    fields.done();
    await settle(call);
    const { rows, next } = await search.page({ filter, order, limit, after });
    return {
      records: rows.map(archivedRecord),
      nextPageToken: next === undefined ? "" : writeToken(subject, [next.occurUs, next.leafIndex]),
    };
  }

  return {
    async list(request, call) {
      const fields = new Fields();
      const filter = filterOf(fields, "filter", request.filter);
      const order = orderOf(fields, request.order);
      const subject = `List ${order} ${serializeFilter(filter)}`;
      const page = await pageOf(fields, { filter, order, subject }, request, call);
      return create(AuditServiceListResponseSchema, page);
    },

    async listPending(request, call) {
      const fields = new Fields();
      const filter = pendingFilter(fields, request.filter);
      const subject = `ListPending ${serializeFilter(filter)}`;
      const page = await pageOf(fields, { filter, order: "oldest", subject }, request, call);
      return create(AuditServiceListPendingResponseSchema, page);
    },

    async *export(request, call) {
      const work = readExport(request, clock.now());
      await settle(call);
      yield* exportRecords(work, { search, archive, clock, signal: call.signal });
    },
  };
}

function pendingFilter(fields: Fields, given: AuditFilter | undefined): Filter {
  const filter = filterOf(fields, "filter", given);
  if (filter.statuses.size > 0) fields.refuse("filter.statuses", "must be empty: all records listed are PENDING");
  return { ...filter, statuses: new Set([AuditStatus.PENDING]) };
}

function orderOf(fields: Fields, order: AuditOrder): Order {
  if (!(order in AuditOrder)) fields.refuse("order", "is not an order that this server knows");
  return order === AuditOrder.OLDEST_FIRST ? "oldest" : "newest";
}

function positionIn(fields: Fields, subject: string, token: string): Position | undefined {
  if (token === "") return undefined;
  const [occurUs, leafIndex] = readToken(subject, token, 2) ?? [];
  if (occurUs !== undefined && leafIndex !== undefined) return { occurUs, leafIndex };
  fields.refuse("page_token", "is not a next_page_token of a listing with the same filter and order");
  return undefined;
}
