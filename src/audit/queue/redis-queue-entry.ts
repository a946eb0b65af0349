/** An entry of the stream. */
export interface QueueEntry {
  readonly id: string;
  /** Empty, like the ones below, when it is not one of ours. */
  readonly producer: string;
  readonly sequence: number;
  readonly leaf: Uint8Array | undefined;
}

const NAMES = ["producer", "sequence", "leaf"].map((name) => Buffer.from(name));

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
  const [, producer, , sequence, , leaf] = fields;
  const ours = fields.length === 6 && NAMES.every((name, at) => isText(fields[2 * at], name));
  if (!ours || !(leaf instanceof Uint8Array)) return { id, producer: "", sequence: 0, leaf: undefined };
  return { id, producer: String(producer), sequence: Number(sequence), leaf };
}

/** Without making a string of it: this is done three times for each record. */
function isText(bytes: unknown, text: Uint8Array): boolean {
  if (!(bytes instanceof Uint8Array) || bytes.length !== text.length) return false;
  for (let at = 0; at < text.length; at++) if (bytes[at] !== text[at]) return false;
  return true;
}

/** Reads what `takeScript` answered. */
export function takenEntries(reply: unknown): QueueEntry[] {
  if (!Array.isArray(reply)) throw new TypeError("Redis did not answer with entries of a stream");
  const taken: readonly unknown[] = reply;
  const entries: QueueEntry[] = [];
  for (let at = 0; at < taken.length; at += 2) {
    const [id = "", producer = "", sequence = ""] = String(taken[at]).split(" ");
    const leaf = taken[at + 1];
    entries.push(
      leaf instanceof Uint8Array
        ? { id, producer, sequence: Number(sequence), leaf }
        : { id, producer: "", sequence: 0, leaf: undefined },
    );
  }
  return entries;
}
