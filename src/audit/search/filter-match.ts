import { type AuditEntry, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import type { Filter, Instant } from "./filter.ts";
import { valueAt } from "./json-pointer.ts";

/** What a filter looks at. */
export interface Matchable {
  readonly producer: string;
  readonly occurUs: number;
  /** As it is now, or `statusAsAppended`. */
  readonly status: number;
  readonly entry: AuditEntry;
}

/** Whether the record is one of those the filter wants. */
export function matches(filter: Filter, record: Matchable): boolean {
  const { entry } = record;
  return (
    isOneOf(filter.actors, entry.actor) &&
    matchesAction(filter, entry.action) &&
    (filter.resourceType === "" || filter.resourceType === entry.resource?.type) &&
    (filter.resourceId === "" || filter.resourceId === entry.resource?.id) &&
    isOneOf(filter.outcomes, entry.outcome) &&
    isOneOf(filter.statuses, record.status) &&
    isOneOf(filter.services, entry.service) &&
    isOneOf(filter.producers, record.producer) &&
    (filter.traceId === "" || filter.traceId === entry.context?.traceId) &&
    (filter.start === undefined || !isBefore(record, filter.start)) &&
    (filter.end === undefined || isBefore(record, filter.end)) &&
    filter.attributes.every((wanted) => (valueAt(entry.attributes, wanted.path) ?? null) === wanted.value)
  );
}

/** The status a record had before anyone reviewed it. */
export function statusAsAppended(entry: AuditEntry): AuditStatus {
  return entry.status === AuditStatus.PENDING ? AuditStatus.PENDING : AuditStatus.NOT_REQUIRED;
}

function isOneOf<T>(wanted: ReadonlySet<T>, value: T): boolean {
  return wanted.size === 0 || wanted.has(value);
}

function matchesAction({ actions, actionPrefixes }: Filter, action: string): boolean {
  if (actionPrefixes.size === 0) return isOneOf(actions, action);
  if (actions.has(action)) return true;
  for (const prefix of actionPrefixes) if (action.startsWith(prefix)) return true;
  return false;
}

function isBefore({ occurUs, entry }: Matchable, { us, nanos }: Instant): boolean {
  return occurUs < us || (occurUs === us && (entry.occurTime?.nanos ?? 0) % 1000 < nanos);
}
