import { create, fromBinary } from "@bufbuild/protobuf";
import { watchOrderOf } from "../../src/conversation/watch/requests.ts";
import type { Place } from "../../src/conversation/watch/start.ts";
import {
  type ConversationChange,
  ConversationStateServiceWatchRequestSchema,
  ConversationSummarySchema,
  ConversationChange_Kind as Kind,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Database } from "../../src/infra/database.ts";
import type { WatchRequest } from "./watch-parts.ts";

/** A change as somebody has to be told of it. */
export interface Due {
  readonly seq: number;
  readonly id: string;
  readonly kind: Kind;
  readonly version: number;
}

/** A change as it is in the tables. */
export interface Row {
  readonly seq: number;
  readonly collection: string;
  readonly id: string;
  readonly kind: Kind;
  readonly version: number;
  readonly facts: { readonly userId: string; readonly status: string };
}

type ChangeRow = { seq: number; collection: string; id: string; kind: number; version: number; summary: Uint8Array };

/** The changes after a place, and what the tables say of each. */
export async function changesAfter(database: Database, place: number): Promise<readonly Row[]> {
  const rows = await database.query<ChangeRow>(
    "SELECT seq, collection, id, kind, version, summary FROM conversation_change WHERE seq > $1 ORDER BY seq",
    [place],
  );
  return rows.map(({ summary, ...row }) => ({ ...row, facts: fromBinary(ConversationSummarySchema, summary) }));
}

/** What a watch has to tell, found the simple way: by knowing which conversations match at any time. */
export function dueOf(rows: readonly Row[], { collection = "", id = "", filter }: WatchRequest): readonly Due[] {
  const statuses = filter?.statuses ?? [];
  const userId = filter?.userId ?? "";
  const matching = new Set<string>();
  return rows.flatMap((row): Due[] => {
    if (row.collection !== collection || (id !== "" && row.id !== id)) return [];
    const isGone = row.kind === Kind.DELETED || row.kind === Kind.EXPIRED;
    const { facts } = row;
    const matches =
      !isGone &&
      (userId === "" || facts.userId === userId) &&
      (statuses.length === 0 || statuses.includes(facts.status));
    const matched = matching.has(row.id);
    if (matches) matching.add(row.id);
    else matching.delete(row.id);
    if (!matches && !matched) return [];
    return [{ seq: row.seq, id: row.id, version: row.version, kind: matches || isGone ? row.kind : Kind.LEFT }];
  });
}

/** What somebody was told, over all their watches. */
export interface Told {
  readonly changes: readonly ConversationChange[];
  /** Between which places they had to read again. */
  readonly gaps: readonly { readonly after: number; readonly upTo: number }[];
}

/** What is wrong with what was told; empty when nothing is. */
export function faultsOf(told: Told, due: readonly Due[]): readonly string[] {
  const inGap = ({ seq }: Due) => told.gaps.some(({ after, upTo }) => seq > after && seq <= upTo);
  const expected = due.filter((one) => !inGap(one)).map(({ id, kind, version }) => `${id} ${Kind[kind]} ${version}`);
  const actual = told.changes.map(({ summary, kind, version }) => `${summary?.id} ${Kind[kind]} ${version}`);
  const at = expected.findIndex((one, index) => one !== actual[index]);
  if (at !== -1) return [`change ${at} of ${expected.length}: "${expected[at]}" was due, "${actual[at]}" was told`];
  if (actual.length > expected.length) return [`"${actual[expected.length]}" was told and not due`];
  return told.gaps.length > 0 ? [] : chainFaults(told.changes);
}

/** After these a filter may keep changes back. */
const ENDS: ReadonlySet<Kind> = new Set([Kind.LEFT, Kind.DELETED, Kind.EXPIRED]);

function chainFaults(changes: readonly ConversationChange[]): readonly string[] {
  const last = new Map<string, ConversationChange>();
  const faults: string[] = [];
  for (const change of changes) {
    const id = change.summary?.id ?? "";
    const before = last.get(id);
    last.set(id, change);
    const follows =
      change.kind === Kind.CREATED
        ? change.previousVersion === 0n
        : before === undefined || ENDS.has(before.kind) || change.previousVersion === before.version;
    if (!follows) faults.push(`${id}: ${change.version} does not follow ${before?.version}`);
  }
  return faults;
}

/** The place that a token stands for. */
export function placeIn(token: string): number {
  return Number(Buffer.from(token, "base64url").toString().split(" ")[2]);
}

/** Which changes those of a database are. */
export async function logOf({ query }: Pick<Database, "query">): Promise<number> {
  const [head] = await query<{ log: number }>("SELECT log FROM conversation_head WHERE id = 1");
  if (head === undefined) throw new Error("the database has no head");
  return head.log;
}

/** A token for another place of the same watch. */
export function tokenAt(request: WatchRequest, place: Place): string {
  return watchOrderOf(create(ConversationStateServiceWatchRequestSchema, request)).tokenOf(place);
}
