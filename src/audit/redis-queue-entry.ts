/** An entry of the stream. */
export interface QueueEntry {
  readonly id: string;
  /** Empty, like the ones below, when it is not one of ours. */
  readonly producer: string;
  readonly sequence: number;
  readonly leaf: Uint8Array | undefined;
}

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
  const [first, producer, second, sequence, third, leaf] = fields;
  const ours =
    fields.length === 6 && String(first) === "producer" && String(second) === "sequence" && String(third) === "leaf";
  if (!ours || !(leaf instanceof Uint8Array)) return { id, producer: "", sequence: 0, leaf: undefined };
  return { id, producer: String(producer), sequence: Number(sequence), leaf };
}
