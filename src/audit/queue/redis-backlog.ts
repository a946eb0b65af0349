import { randomUUID } from "node:crypto";
import { type Redis, type RedisArgument, RedisReplyError } from "../../infra/redis.ts";
import { unseal } from "../record/leaf.ts";
import { idOf, type RecordId, type Sealed } from "../record/record.ts";
import type { Backlog, Waiting } from "./backlog.ts";
import { finishScript, openScript, quarantineScript } from "./redis-backlog-scripts.ts";
import { asEntries, type QueueEntry } from "./redis-queue-entry.ts";
import { GROUP, queueKeys } from "./redis-queue-keys.ts";
import { leavesOf, mostLeavesIn, type Run } from "./run.ts";

export interface RedisBacklogOptions {
  readonly redis: Redis;
  readonly streamKey: string;
  /** The name of this instance in the consumer group. */
  readonly consumer: string;
  /** Records that are read at a time. Default: 4,000. */
  readonly mostRecords?: number;
  /** How long a read waits for something to come. Default: 250. */
  readonly blockMs?: number;
  /** How long Redis may take to answer, beyond that. Default: 2,000. */
  readonly answerMs?: number;
}

const MOST_BYTES = 4 * 1024 * 1024;
/** Entries in one reply, at most: nobody knows beforehand how large they are, and one may have 256 KiB, or 1,000 records. */
const PAGE = 250;
/** What is asked for while nobody knows anything, and by how much a reply may grow beyond the one before. */
const FIRST_PAGE = 4;
const PAGE_GROWTH = 4;
/** After so many there are likely to be more. */
const MANY = 250;
/** What one reply should come to. */
const PAGE_BYTES = 256 * 1024;

export function createRedisBacklog(options: RedisBacklogOptions): Backlog {
  const { streamKey, consumer, mostRecords = 4_000, blockMs = 250, answerMs = 2_000 } = options;
  const keys = queueKeys(streamKey);
  const redis = options.redis.withCommandTimeout(blockMs + answerMs);
  const instance = randomUUID();
  let finishes = 0;
  /** Of the entries in the last reply; and how many they were. */
  let meanBytes = 0;
  let lastPage = 0;
  /** Whether there was so much that more will be there already. */
  let isBusy = false;

  async function open(): Promise<void> {
    await redis.run(openScript, [keys.stream, keys.producers], [GROUP]);
  }

  function pageSize(): number {
    const most = Math.min(PAGE, PAGE_GROWTH * lastPage, Math.floor(PAGE_BYTES / Math.max(1, meanBytes)));
    return Math.max(FIRST_PAGE, most);
  }

  function weigh(entries: readonly QueueEntry[]): number {
    let bytes = 0;
    for (const { run } of entries) bytes += run?.leaves.length ?? 0;
    lastPage = entries.length;
    if (lastPage > 0) meanBytes = bytes / lastPage;
    return bytes;
  }

  /** What is there now, or comes within so many milliseconds. */
  async function take(waitMs?: number): Promise<QueueEntry[]> {
    const command: RedisArgument[] = ["GROUP", GROUP, consumer, "COUNT", pageSize()];
    if (waitMs !== undefined) command.push("BLOCK", waitMs);
    const reply = await redis.commandBuffers("xreadgroup", ...command, "STREAMS", keys.stream, ">");
    if (reply === null) return [];
    const [stream]: unknown[] = Array.isArray(reply) ? reply : [];
    return asEntries(Array.isArray(stream) ? stream[1] : undefined);
  }

  async function claim(): Promise<readonly Waiting[]> {
    for (;;) {
      const pending = await redis.command("xpending", keys.stream, GROUP, "-", "+", pageSize());
      const ids: string[] = [];
      for (const one of Array.isArray(pending) ? pending : []) if (Array.isArray(one)) ids.push(String(one[0]));
      if (ids.length === 0) return [];
      const claimed = asEntries(await redis.commandBuffers("xclaim", keys.stream, GROUP, consumer, 0, ...ids));
      // Deleted behind our back; before Redis 7 they would stay pending for ever.
      const there = new Set(claimed.map(({ id }) => id));
      const gone = ids.filter((id) => !there.has(id));
      if (gone.length > 0) await redis.command("xack", keys.stream, GROUP, ...gone);
      weigh(claimed);
      if (claimed.length > 0) return claimed.map(waitingOf);
    }
  }

  async function read(): Promise<readonly Waiting[]> {
    let page = isBusy ? await take() : [];
    if (page.length === 0) page = await take(blockMs);
    const read: Waiting[] = [];
    let bytes = 0;
    let records = 0;
    for (;;) {
      bytes += weigh(page);
      records += countOf(page);
      // Each page by itself, so that others have their turns in between.
      for (const entry of page) read.push(waitingOf(entry));
      // The next page may be as large as this one.
      if (page.length === 0 || records + countOf(page) > mostRecords || bytes >= MOST_BYTES) break;
      page = await take();
    }
    isBusy = records >= MANY;
    return read;
  }

  /** Redis has lost the stream, or only the group: both begin anew. */
  async function unlessGone(take: () => Promise<readonly Waiting[]>): Promise<readonly Waiting[]> {
    try {
      return await take();
    } catch (error) {
      if (!isGroupGone(error)) throw error;
      await open();
      return [];
    }
  }

  return {
    open,
    claim: () => unlessGone(claim),
    read: () => unlessGone(read),
    async finish(done) {
      const foreign: string[] = [];
      const runs = new Map<string, string[]>();
      for (const one of done) {
        if (one.kind === "foreign") foreign.push(one.entry);
        if (one.kind === "foreign" || one.broken !== undefined) continue;
        const { producer, first, last } = one.run;
        const words = runs.get(producer) ?? [];
        words.push(`${one.entry} ${first} ${last}`);
        runs.set(producer, words);
      }
      const args: RedisArgument[] = [GROUP, `${instance}/${++finishes}`, foreign.length, ...foreign];
      // Bytes: a string this long takes ioredis several times as long.
      for (const [producer, words] of runs) args.push(producer, Buffer.from(words.join(" "), "latin1"));
      const tails = [...runs.keys()].map(keys.tail);
      let left = await redis.run(finishScript, [keys.stream, keys.producers, ...tails], args);
      for (const one of done) {
        if (one.kind === "foreign" || one.broken === undefined) continue;
        const count = one.records.length + one.broken.count;
        left = await redis.run(
          quarantineScript,
          [keys.stream, keys.producers, keys.quarantine],
          [GROUP, one.entry, count],
        );
      }
      return Number(left);
    },
    close: () => redis.close(),
  };
}

function countOf(entries: readonly QueueEntry[]): number {
  let records = 0;
  for (const { run } of entries) records += run === undefined ? 1 : recordsIn(run);
  return records;
}

/** As many as it says, if that can be: who looks into Redis may have written anything. */
function recordsIn({ first, last, leaves }: Run): number {
  const count = Math.min(last - first + 1, mostLeavesIn(leaves));
  if (count >= 1) return count;
  // Or it is no number at all.
  return 1;
}

function waitingOf({ id: entry, run }: QueueEntry): Waiting {
  if (run === undefined) return { kind: "foreign", entry };
  const records: Sealed[] = [];
  let cause: unknown;
  try {
    for (const { id, leaf } of leavesOf(run)) {
      try {
        records.push(recordOf(id, leaf));
      } catch (error) {
        cause ??= error;
      }
    }
  } catch (error) {
    cause = error;
  }
  const count = recordsIn(run) - records.length;
  return { kind: "run", entry, run, records, ...(cause !== undefined && { broken: { count, cause } }) };
}

function recordOf(id: RecordId, leaf: Uint8Array): Sealed {
  const record = unseal(leaf);
  if (record.producer !== id.producer || record.sequence !== id.sequence)
    throw new Error(`${idOf(id)} says that it is ${idOf(record)}`);
  return record;
}

/** The stream is gone, and its groups with it; the second is what those who wait for it are told before Redis 7. */
function isGroupGone(error: unknown): boolean {
  return error instanceof RedisReplyError && (error.code === "NOGROUP" || error.code === "UNBLOCKED");
}
