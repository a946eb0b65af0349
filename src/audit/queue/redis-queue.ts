import { randomUUID } from "node:crypto";
import { UnavailableError } from "../../infra/failure.ts";
import { type Redis, type RedisArgument, RedisReplyError, type RedisScript } from "../../infra/redis.ts";
import type { Growth } from "../archive/growth.ts";
import { createRoom } from "../intake/room.ts";
import { open } from "../record/leaf.ts";
import { idOf, REQUEST_PRODUCER, type RecordId, type Sealed } from "../record/record.ts";
import { type Queue, type QueueAppend, QueueFullError, type QueueOutcome } from "./queue.ts";
import { createDrain } from "./redis-queue-drain.ts";
import { asEntries } from "./redis-queue-entry.ts";
import { GROUP, queueKeys } from "./redis-queue-keys.ts";
import { appendScript, conditionScript, findScript, frontierScript, sequencesScript } from "./redis-queue-scripts.ts";
import { leavesOf, type Run, runsOf } from "./run.ts";

export interface RedisQueueOptions {
  readonly redis: Redis;
  /** Such as "audit_queue:stream". The other keys are made of it. */
  readonly streamKey: string;
  /** How many records may wait to be archived. */
  readonly maxLength: number;
  readonly growth: Growth;
  /** Called when Redis is seen to have lost what was queued, or may have. */
  readonly onLost: () => void;
}

/**
 * Records that are with Redis at a time. Enough to keep it busy, and few enough to be done within a fraction of the time in which
 * it has to answer, so that a flood of ours is not taken for its absence. The rest waits here, in order.
 */
const WITH_REDIS = 4_000;
const FOR_EVER = new AbortController().signal;

const OUTCOMES: Readonly<Record<string, QueueOutcome>> = { q: "queued", h: "held", l: "late", s: "stranger" };

/** How much of the stream is read at a time when nothing else can tell what waits: some MiB where records are large. */
const PAGE = 100;

export function createRedisQueue({ redis, streamKey, maxLength, growth, onLost }: RedisQueueOptions): Queue {
  const keys = queueKeys(streamKey);
  // Generations must not repeat, not even between instances.
  const instance = randomUUID();
  const room = createRoom(WITH_REDIS);
  let appends = 0;
  let appended = 0;
  /** As it was last seen. */
  let era = "";

  function noteEra(seen: string): void {
    const isOver = era !== "" && seen !== era;
    era = seen;
    if (isOver) onLost();
  }

  /** Redis that is up but refuses, say because a key is of another type, is as good as away: the archive takes over. */
  function refuse(error: unknown): never {
    if (!(error instanceof RedisReplyError)) throw error;
    throw new UnavailableError("AUDIT_QUEUE_UNUSABLE", "Redis refuses to queue audit records", { cause: error });
  }

  function run(script: RedisScript, more: readonly string[], args: readonly RedisArgument[]): Promise<unknown> {
    return redis.run(script, [keys.stream, keys.producers, ...more], args).catch(refuse);
  }

  async function append({ records, seeds, settled = false }: QueueAppend): Promise<readonly QueueOutcome[]> {
    if (records.length === 0 && seeds === undefined) return [];
    const { unique, repeated } = withoutRepeats(records);
    const { places, producers } = records.length === 0 ? placesOf(idsOf(seeds)) : placesOf(unique);
    const args: RedisArgument[] = [maxLength, settled ? "1" : "0", `${instance}/${++appends}`];
    for (const producer of producers) args.push(producer, seedOf(producer, seeds));
    for (const { producer, first, last, leaves } of runsOf(unique)) {
      args.push(String(places.get(producer)), String(first), String(last), leaves);
    }
    const leave = await room.take(records.length, FOR_EVER);
    const reply = await run(appendScript, producers.map(keys.tail), args).finally(leave);
    if (reply === "full") throw new QueueFullError(`${maxLength} audit records wait to be archived already`);
    if (reply === "memory") throw new QueueFullError("Redis has no memory left for audit records");
    const outcomes: QueueOutcome[] = [];
    const [letters = "", seen = ""] = String(reply).split(" ");
    noteEra(seen);
    for (const letter of letters) {
      const outcome = OUTCOMES[letter];
      if (outcome !== undefined) outcomes.push(outcome);
    }
    appended += outcomes.length;
    if (outcomes.length !== unique.length) throw new TypeError(`unexpected reply of Redis: ${String(reply)}`);
    return repeated === undefined ? outcomes : withRepeats(outcomes, repeated);
  }

  async function find(ids: readonly RecordId[]): Promise<readonly (Uint8Array | undefined)[]> {
    if (ids.length === 0) return [];
    const { places, producers } = placesOf(ids);
    const args = ids.flatMap(({ producer, sequence }) => [String(places.get(producer)), producer, String(sequence)]);
    const reply = await run(findScript, producers.map(keys.tail), args);
    if (!Array.isArray(reply)) throw new TypeError("unexpected reply of Redis");
    const found: readonly unknown[] = reply;
    const unsure = new Map<string, Uint8Array | undefined>();
    for (const [at, id] of ids.entries()) if (found[at] === 1) unsure.set(idOf(id), undefined);
    if (unsure.size > 0) {
      await scan((id, leaf) => {
        if (unsure.has(idOf(id))) unsure.set(idOf(id), leaf);
      });
    }
    return ids.map((id, at) => {
      const leaf = found[at];
      return leaf instanceof Uint8Array ? leaf : unsure.get(idOf(id));
    });
  }

  /** Walks through all records of the stream: only after Redis has lost what tells where they are. */
  async function scan(visit: (id: RecordId, leaf: Uint8Array) => void): Promise<void> {
    for (let start = "-"; ; ) {
      const page = asEntries(
        await redis.commandBuffers("xrange", keys.stream, start, "+", "COUNT", PAGE).catch(refuse),
      );
      for (const { run } of page) {
        if (run !== undefined) for (const { id, leaf } of readable(run)) visit(id, leaf);
      }
      const last = page.at(-1);
      if (last === undefined) return;
      start = `(${last.id}`;
    }
  }

  async function sequences(producer: string): Promise<readonly number[]> {
    const found = new Set<number>();
    let after = "0";
    do {
      const reply = await run(sequencesScript, [keys.tail(producer)], [producer, after]);
      if (!Array.isArray(reply)) {
        await scan((id) => {
          if (id.producer === producer) found.add(id.sequence);
        });
        break;
      }
      const [next, ...ends]: unknown[] = reply;
      for (let at = 0; at < ends.length; at += 2) {
        for (let sequence = Number(ends[at]); sequence <= Number(ends[at + 1]); sequence++) found.add(sequence);
      }
      after = String(next);
    } while (after !== "");
    return [...found].sort((a, b) => a - b);
  }

  const drain = createDrain(async () => {
    const reply = await run(frontierScript, [], [GROUP]);
    const [seen, first, last]: unknown[] = Array.isArray(reply) ? reply : [];
    noteEra(String(seen));
    return first === undefined ? undefined : { first: String(first), last: String(last) };
  }, growth);

  return {
    append,
    raise: async (marks) => void (await append({ records: [], seeds: marks })),
    find,
    sequences,
    drained: drain.wait,
    traffic: {
      get appended() {
        return appended;
      },
      get awaited() {
        return drain.awaited;
      },
    },
    async lastSequence(producer) {
      const mark = await redis.command("hget", keys.producers, producer).catch(refuse);
      return typeof mark === "string" ? Number(mark) : undefined;
    },
    async condition() {
      const [reply, bytes] = await Promise.all([
        run(conditionScript, [keys.quarantine], [GROUP]),
        redis.command("memory", "usage", keys.stream).catch(refuse),
      ]);
      const [unarchived, foreign, quarantined, seen, leaf]: unknown[] = Array.isArray(reply) ? reply : [];
      noteEra(String(seen));
      return {
        unarchived: Number(unarchived),
        bytes: Number(bytes ?? 0),
        oldestAcceptUs: acceptTimeOf(leaf),
        foreign: Number(foreign),
        quarantined: Number(quarantined),
      };
    },
  };
}

/** A repeat is left out: what becomes of it is known from the first one, whose place it is given by. */
function withoutRepeats(records: readonly Sealed[]) {
  const largest = new Map<string, number>();
  let rises = true;
  for (const { producer, sequence } of records) {
    rises &&= sequence > (largest.get(producer) ?? 0);
    largest.set(producer, sequence);
  }
  if (rises) return { unique: records, repeated: undefined };
  const placeOf = new Map<string, number>();
  const unique: Sealed[] = [];
  const repeated = records.map((record) => {
    const id = idOf(record);
    const isFirst = !placeOf.has(id);
    if (isFirst) placeOf.set(id, unique.push(record) - 1);
    return { place: placeOf.get(id), isFirst };
  });
  return { unique, repeated };
}

function withRepeats(
  outcomes: readonly QueueOutcome[],
  repeated: readonly { readonly place: number | undefined; readonly isFirst: boolean }[],
): QueueOutcome[] {
  return repeated.map(({ place = -1, isFirst }) => {
    const outcome = outcomes[place];
    if (outcome === undefined) throw new RangeError("a record has no outcome");
    return outcome === "queued" && !isFirst ? "held" : outcome;
  });
}

/** What cannot be read is for the archiver to put aside. */
function readable(run: Run): ReturnType<typeof leavesOf> {
  try {
    return leavesOf(run);
  } catch {
    return [];
  }
}

function idsOf(seeds: QueueAppend["seeds"]): readonly RecordId[] {
  return [...(seeds ?? [])].map(([producer, sequence]) => ({ producer, sequence }));
}

/** Each producer once, and its place among them, from 1. */
function placesOf(ids: readonly RecordId[]): { places: ReadonlyMap<string, number>; producers: readonly string[] } {
  const places = new Map<string, number>();
  let last = "";
  for (const { producer } of ids) {
    if (producer === last) continue;
    last = producer;
    if (!places.has(producer)) places.set(producer, places.size + 1);
  }
  return { places, producers: [...places.keys()] };
}

function seedOf(producer: string, seeds: QueueAppend["seeds"]): string {
  if (producer.startsWith(REQUEST_PRODUCER)) return "-";
  const seed = seeds?.get(producer);
  return seed === undefined ? "" : String(seed);
}

function acceptTimeOf(leaf: unknown): number | undefined {
  if (!(leaf instanceof Uint8Array)) return undefined;
  try {
    return open(leaf).acceptUs;
  } catch {
    // The archiver will put it into quarantine, and say so.
    return undefined;
  }
}
