import { RUN_FIELDS, type Run } from "./run.ts";

/** An entry of the stream. */
export interface QueueEntry {
  readonly id: string;
  /** Undefined when it is not one of ours. */
  readonly run: Run | undefined;
}

const NAMES = RUN_FIELDS.map((name) => Buffer.from(name));

/** Reads a reply that lists entries; those that were deleted meanwhile, which some versions of Redis list as nil, are left out. */
export function asEntries(reply: unknown): QueueEntry[] {
  if (!Array.isArray(reply)) throw new TypeError("Redis did not answer with entries of a stream");
  const entries: QueueEntry[] = [];
  for (const item of reply) {
    if (Array.isArray(item) && Array.isArray(item[1])) entries.push(entryOf(String(item[0]), item[1]));
  }
  return entries;
}

function entryOf(id: string, fields: readonly unknown[]): QueueEntry {
  const [, producer, , first, , last, , leaves] = fields;
  const ours =
    fields.length === 2 * NAMES.length &&
    NAMES.every((name, at) => {
      const field = fields[2 * at];
      return field instanceof Uint8Array && name.equals(field);
    });
  if (!ours || !(leaves instanceof Buffer)) return { id, run: undefined };
  return { id, run: { producer: String(producer), first: Number(first), last: Number(last), leaves } };
}
