import { onTestFinished } from "vitest";
import { createGrowth, type Growth } from "../../src/audit/archive/growth.ts";
import type { Queue } from "../../src/audit/queue/queue.ts";
import { createRedisQueue } from "../../src/audit/queue/redis-queue.ts";
import { runsOf } from "../../src/audit/queue/run.ts";
import { seal } from "../../src/audit/record/leaf.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { open } from "../infra/redis-clients.ts";
import { entryOf } from "../support/audit-entries.ts";
import { freshRedis } from "../support/fresh.ts";

export const STREAM = "audit_queue:stream";
export const PRODUCERS = `{${STREAM}}:producers`;
export const QUARANTINE = `{${STREAM}}:quarantine`;
export const LEASE = `{${STREAM}}:archiver`;
export const tailOf = (producer: string) => `{${STREAM}}:tail:${producer}`;

export const ACCEPT_US = 1_750_000_000_000_000;

export function recordOf(producer: string, sequence: number): Sealed {
  return seal({ producer, sequence }, ACCEPT_US + sequence, entryOf(producer, sequence));
}

/** Those with the sequences from the first to the last. */
export function recordsOf(producer: string, first: number, last: number): Sealed[] {
  return Array.from({ length: last - first + 1 }, (_, at) => recordOf(producer, first + at));
}

export function openGrowth(): Growth {
  const growth = createGrowth(createLocalBackplane());
  onTestFinished(() => growth.close());
  return growth;
}

export function openQueue(
  redis: Redis,
  growth: Growth = openGrowth(),
  maxLength = 250_000,
  onLost: () => void = () => {},
): Queue {
  return createRedisQueue({ redis, streamKey: STREAM, maxLength, growth, onLost });
}

/** As a producer that the archive holds nothing of. */
export function seedsFor(...producers: readonly string[]): ReadonlyMap<string, number> {
  return new Map(producers.map((producer) => [producer, 0]));
}

/** The fields of the entry that these records are, which have to follow each other. */
export function fieldsOf(...records: readonly Sealed[]): (string | Buffer)[] {
  const [run, ...others] = runsOf(records);
  if (run === undefined || others.length > 0) throw new RangeError("these records are not one run");
  return ["producer", run.producer, "first", String(run.first), "last", String(run.last), "leaves", run.leaves];
}

/** The identities in the stream, in its order; "foreign" for what is none of ours. */
export async function inStream(redis: Redis): Promise<string[]> {
  const entries = await redis.command("xrange", STREAM, "-", "+");
  if (!Array.isArray(entries)) throw new TypeError("XRANGE did not answer with a list");
  return entries.flatMap(([, fields]) => {
    const [name, producer, , first, , last] = fields;
    if (name !== "producer") return ["foreign"];
    const count = Number(last) - Number(first) + 1;
    return Array.from({ length: count }, (_, at) => `${producer}/${Number(first) + at}`);
  });
}

/** A queue of its own, on a Redis of its own. */
export async function freshQueue(maxLength?: number) {
  const redis = open(await freshRedis(), { commandTimeoutMs: 10_000 });
  const queue = openQueue(redis, openGrowth(), maxLength);
  // From now on the server knows the script, so that a call to it takes one command, in its turn.
  await queue.drained(new AbortController().signal);
  return { redis, queue };
}

/** A producer with 1 to 3 in the queue. */
export async function withThree() {
  const { redis, queue } = await freshQueue();
  await queue.append({ records: recordsOf("p", 1, 3), seeds: seedsFor("p") });
  return { redis, queue };
}
