import type { RedisArgument } from "../../infra/redis.ts";

/** The keys of one queue, all in one slot of a cluster. */
export interface QueueKeys {
  /** The stream. Its entries are `producer`, `sequence` and `leaf`, the first two for people who look with redis-cli. */
  readonly stream: string;
  /**
   * A hash, producer -> its largest sequence queued or archived. No producer has a "/" in its name; fields with one are:
   * - "/" the generation: drawn whenever a record is queued while no other waits. Missing: the hash was lost meanwhile;
   * - "/era" another one each time Redis has lost the stream or this hash; drawn with the first record that is queued then;
   * - "/foreign" how many entries in the stream are not ours, of those seen by the archiver. Missing: nobody counted;
   * - "<producer>/" the generation in which its tail was begun.
   */
  readonly producers: string;
  /** A stream of entries that cannot be read. */
  readonly quarantine: string;
  /** Who archives now. */
  readonly lease: string;
  /** A hash, sequence -> entry of the stream, for what waits of one producer; and "/" -> generation. */
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

/** As Redis takes it, not copied. */
export function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): RedisArgument {
  return Buffer.from(buffer, byteOffset, byteLength);
}
