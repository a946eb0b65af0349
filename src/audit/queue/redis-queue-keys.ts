/** The keys of one queue, all in one slot of a cluster. */
export interface QueueKeys {
  /** The stream. Its entries are runs of records (see run.ts): `producer`, `first`, `last` (sequences) and `leaves`. */
  readonly stream: string;
  /**
   * A hash, producer -> its largest sequence queued or archived. No producer has a "/" in its name; fields with one are:
   * - "/" the generation: drawn whenever a record is queued while no other waits. Missing: the hash was lost meanwhile;
   * - "/era" another one each time Redis has lost the stream or this hash; drawn with the first record that is queued then;
   * - "/foreign" how many entries in the stream are not ours, of those seen by the archiver. Missing: nobody counted;
   * - "/records" how many records wait, as far as it was counted: see WAITING in redis-queue-lua.ts;
   * - "<producer>/" the generation in which its tail was begun.
   */
  readonly producers: string;
  /** A stream of entries that cannot be read. */
  readonly quarantine: string;
  /** Who archives now. */
  readonly lease: string;
  /**
   * A sorted set of what waits of one producer: for each run its entry and its first sequence, by its last sequence; and "/"
   * followed by the generation, by 0.
   */
  tail(producer: string): string;
}

/** The consumer group of the archivers. */
export const GROUP = "audit_archiver";

export function queueKeys(stream: string): QueueKeys {
  const prefix = prefixOf(stream);
  return {
    stream,
    producers: `${prefix}:producers`,
    quarantine: `${prefix}:quarantine`,
    lease: `${prefix}:archiver`,
    tail: (producer) => `${prefix}:tail:${producer}`,
  };
}

/** What keys begin with that live in the slot of this one: a cluster looks at what the first braces enclose, if anything. */
function prefixOf(key: string): string {
  if (/^[^{]*\{[^}]+\}/.test(key)) return key;
  if (key === "" || key.includes("}")) throw new RangeError(`"${key}" cannot be the key of the stream`);
  return `{${key}}`;
}
