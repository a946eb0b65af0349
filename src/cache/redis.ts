import { invalidField } from "../infra/failure.ts";
import { type Redis, type RedisArgument, RedisReplyError } from "../infra/redis.ts";
import { createRedisReader } from "../infra/redis-reader.ts";
import type { Announcement, Announcer } from "./change.ts";
import { type CacheRecord, type Draft, isFresh } from "./record.ts";
import { createRedisFences } from "./redis-fences.ts";
import { headerTail, parseHeader, parseRecord, payload } from "./redis-record.ts";
import {
  fencedWriteScript,
  invalidateScript,
  leaseScript,
  raiseScript,
  releaseScript,
  stampsScript,
  writeScript,
} from "./redis-scripts.ts";
import {
  type AskedFence,
  type Guard,
  type HotStore,
  isOvertaken,
  type KeyInfo,
  type KeyPage,
  ListingInterruptedError,
  type ReadResult,
  type Write,
  type WriteResult,
} from "./store.ts";
import { invalidationStamp, madeStamp } from "./version.ts";

/*
 * Keys: `holdfast:cache:{ns/key}`, its lease `holdfast:lease:{ns/key}` and request memory in the same slot of a cluster;
 * and, in a cluster, the fence of each lock `holdfast:fence:{ns/key}:lock` (else `holdfast:fence:lock`, one for all entries);
 * marks `holdfast:mark:{ns}` and `holdfast:mark:{ns}:tag` together in one slot per namespace. Entries spread over all slots.
 */
const entryKey = (namespace: string, key: string) => `holdfast:cache:{${namespace}/${key}}`;
const leaseKey = (namespace: string, key: string) => `holdfast:lease:{${namespace}/${key}}`;
const requestKey = (namespace: string, key: string, id: string) => `holdfast:request:{${namespace}/${key}}:${id}`;
const fenceKeyOfEntry = (namespace: string, key: string, lock: string) =>
  `holdfast:fence:{${namespace}/${key}}:${lock.replaceAll("%", "%25").replaceAll("}", "%7D")}`;
const markKey = (namespace: string, tag: string) => `holdfast:mark:{${namespace}}${tag === "" ? "" : `:${tag}`}`;

/** How much of an entry a listing reads to see its header; longer headers (many tags) are read whole. */
const HEADER_BYTES = 512;
/** How long the mark of a tag that nothing carries is kept: longer than a lease can last. */
const UNCARRIED_MS = 1_200_000;
const CURSOR = "redis:";
const NOBODY: Announcement = { channel: "", before: "", after: "" };

export interface RedisStoreOptions {
  readonly redis: Redis;
  readonly announcer: Announcer;
  readonly clock: { now(): number };
  /** A stamp for a mark that does not exist yet: larger than any given before. */
  readonly newStamp: () => number;
}

export function createRedisStore({ redis, announcer, clock, newStamp }: RedisStoreOptions): HotStore {
  const reader = createRedisReader(redis);
  const fences = createRedisFences(redis, newStamp);

  // Not an async function, for what that would cost each read.
  function read(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    const entries = keys.map((key) => entryKey(namespace, key));
    return reader.fetch(entries, [markKey(namespace, "")]).then((values) => {
      const stamp = stampOf(values[keys.length]);
      const records = keys.map((_, i) => (values[i] ? parseRecord(values[i]) : undefined));
      if (!records.some(hasTags)) return records.map((record) => judged(record, stamp, undefined));
      return currentStamps(namespace, tagsOf(records)).then((stamps) =>
        records.map((record) => judged(record, stamp, stamps)),
      );
    });
  }

  function judged(
    record: CacheRecord | undefined,
    stamp: number | undefined,
    tagStamps: ReadonlyMap<string, number | undefined> | undefined,
  ): ReadResult {
    const valid = record !== undefined && record.stamps[0] === stamp && tagsMatch(record, tagStamps);
    return { record, valid, layer: "redis" };
  }

  async function currentStamps(namespace: string, tags: readonly string[]): Promise<Map<string, number | undefined>> {
    const values = await reader.fetch(
      [],
      tags.map((tag) => markKey(namespace, tag)),
    );
    return new Map(tags.map((tag, i) => [tag, stampOf(values[i])]));
  }

  /** The stamps a new record will carry: its namespace's and its tags', made where they are missing. */
  function stampsFor(namespace: string, draft: Draft): Promise<readonly number[]> {
    const fetched = reader.fetch([], [markKey(namespace, "")]);
    if (draft.tags.length > 0) return stampsWithTags(namespace, draft, fetched);
    return fetched.then(([own]) => {
      const stamp = stampOf(own);
      return stamp === undefined ? makeStamp(namespace) : [stamp];
    });
  }

  function makeStamp(namespace: string): Promise<number[]> {
    return runForStamps(stampsScript, namespace, [""], [madeStamp(newStamp()), 0]);
  }

  async function stampsWithTags(
    namespace: string,
    draft: Draft,
    fetched: Promise<(Buffer | null)[]>,
  ): Promise<readonly number[]> {
    const fresh = madeStamp(newStamp());
    const [[own], tags] = await Promise.all([
      fetched,
      runForStamps(stampsScript, namespace, draft.tags, [fresh, keepMs(draft)]),
    ]);
    const stamp = stampOf(own) ?? (await makeStamp(namespace))[0] ?? 0;
    return [stamp, ...tags];
  }

  /** Stamps brought from another layer must be the current ones here; a newer mark means the record was invalidated since. */
  async function adopt(namespace: string, draft: Draft, stamps: readonly number[]): Promise<boolean> {
    const names = ["", ...draft.tags];
    const current = await reader.fetch(
      [],
      names.map((tag) => markKey(namespace, tag)),
    );
    if (names.every((_, i) => stampOf(current[i]) === stamps[i])) return true;
    const [own, ...ofTags] = stamps;
    const [[ownNow], tagsNow] = await Promise.all([
      runForStamps(raiseScript, namespace, [""], [0, "", own ?? 0, "", ""]),
      draft.tags.length === 0
        ? []
        : runForStamps(raiseScript, namespace, draft.tags, [
            keepMs(draft),
            "",
            ...ofTags.flatMap((stamp) => [stamp, "", ""]),
          ]),
    ]);
    return ownNow === own && tagsNow.every((stamp, i) => stamp === ofTags[i]);
  }

  async function runForStamps(
    script: typeof stampsScript,
    namespace: string,
    tags: readonly string[],
    args: readonly (number | string)[],
  ): Promise<number[]> {
    const reply = await redis.run(
      script,
      tags.map((tag) => markKey(namespace, tag)),
      args,
    );
    return (reply as unknown[]).map(Number);
  }

  function writeOne(namespace: string, write: Write): Promise<WriteResult> {
    const { draft, guard, stamps: given } = write;
    if (given === undefined) {
      return stampsFor(namespace, draft).then((stamps) =>
        isOvertaken(guard, stamps)
          ? { stored: false, why: "overtaken", stamp: Math.max(...stamps), layer: "redis" }
          : send(namespace, write, stamps),
      );
    }
    if (draft.deleted) return send(namespace, write, given);
    return adopt(namespace, draft, given).then((adopted) =>
      adopted ? send(namespace, write, given) : { stored: false, why: "overtaken", layer: "redis" },
    );
  }

  function send(namespace: string, write: Write, stamps: readonly number[]): Promise<WriteResult> {
    const { key, draft, guard, request, fence } = write;
    const told = write.announce === "no" ? NOBODY : announcer(write.announce, namespace, key);
    const lease = leaseKey(namespace, key);
    const keys: [string, string, string] = [
      entryKey(namespace, key),
      lease,
      request === undefined ? lease : requestKey(namespace, key, request.id),
    ];
    const args: RedisArgument[] = [
      scriptGuard(guard),
      draft.version,
      "seen" in guard ? guard.seen : 0,
      guard.kind === "lease" ? guard.token : "",
      headerTail(draft, stamps),
      asArgument(payload(draft)),
      keepMs(draft),
      told.channel,
      told.before,
      told.after,
    ];
    const remembered =
      request === undefined ? [] : [request.answer, Math.max(1, Math.ceil(request.expiresAt - clock.now()))];
    if (fence !== undefined) {
      const { lock } = fence;
      const fenceKey = redis.mode === "cluster" ? fenceKeyOfEntry(namespace, key, lock) : `holdfast:fence:${lock}`;
      return sendFenced(fence, [...keys, fenceKey], args, remembered).then((reply) => resultOf(reply, stamps));
    }
    args.push(...remembered);
    return redis.run(writeScript, keys, args).then((reply) => resultOf(reply, stamps));
  }

  async function sendFenced(
    fence: AskedFence,
    keys: readonly [string, string, string, fenceKey: string],
    args: readonly RedisArgument[],
    remembered: readonly RedisArgument[],
  ): Promise<unknown> {
    const [, , , fenceKey] = keys;
    const life = redis.lifeOf(fenceKey);
    const said = fences.argumentsOf(fenceKey, fence);
    const reply = await redis.run(fencedWriteScript, keys, [...args, ...said, ...remembered]);
    const [, era] = /^forgotten (\S+)$/.exec(String(reply)) ?? [];
    if (era !== undefined) fences.learn(fenceKey, era, life);
    return reply;
  }

  function keepMs(draft: Draft): number {
    return draft.staleUntil === undefined ? 0 : Math.max(1, Math.ceil(draft.staleUntil - clock.now()));
  }

  async function list(namespace: string, prefix: string, limit: number, cursor: string | undefined): Promise<KeyPage> {
    const start = entryKey(namespace, "").slice(0, -1);
    let at = parseCursor(cursor);
    const keys: KeyInfo[] = [];
    // A call returns what it has after this many steps, so that a sparse namespace in a large Redis cannot hold it up.
    for (let step = 0; step < 20 && keys.length < limit; step++) {
      const batch = await redis.scan(`${escapeGlob(start + prefix)}*`, at.scan, 500);
      const names = [...new Set(batch.keys)].sort().filter((name) => at.after === undefined || name > at.after);
      const room = limit - keys.length;
      keys.push(...(await infos(namespace, names.slice(0, room), start.length)));
      const last = names[room - 1];
      at = names.length > room ? { scan: at.scan, after: last } : { scan: batch.cursor, after: undefined };
      if (at.after === undefined && at.scan === "0") return { keys, cursor: undefined };
      if (at.after !== undefined && keys.length < limit) step--;
    }
    return { keys, cursor: CURSOR + JSON.stringify([at.scan, at.after ?? ""]) };
  }

  async function infos(namespace: string, names: readonly string[], keyAt: number): Promise<KeyInfo[]> {
    const heads = await Promise.all(names.map(readHeader));
    const records = heads.map((head) => (head === undefined ? undefined : parseHeader(head)));
    const [own] = await reader.fetch([], [markKey(namespace, "")]);
    const tagStamps = records.some(hasTags) ? await currentStamps(namespace, tagsOf(records)) : undefined;
    return records.flatMap((record, i) => {
      if (record === undefined || !isFresh(record, clock.now())) return [];
      if (record.stamps[0] !== stampOf(own) || !tagsMatch(record, tagStamps)) return [];
      const key = (names[i] ?? "").slice(keyAt, -1);
      return [{ key, version: record.version, expiresAt: record.expiresAt }];
    });
  }

  async function readHeader(name: string): Promise<Buffer | undefined> {
    const head = await redis.commandBuffers("getrange", name, 0, HEADER_BYTES - 1).catch(unlessNotText);
    if (!Buffer.isBuffer(head) || head.length < HEADER_BYTES || head.includes(0x0a)) {
      return Buffer.isBuffer(head) ? head : undefined;
    }
    const [whole] = await reader.fetch([name], []);
    return whole ?? undefined;
  }

  return {
    layer: "redis",
    read,
    write: (namespace, writes) => Promise.all(writes.map((write) => writeOne(namespace, write))),
    async invalidate(namespace, tags, stamp) {
      const names = tags.length === 0 ? [""] : tags;
      const told = names.map((tag) => announcer(tag === "" ? "namespace" : "tag", namespace, tag));
      await redis.run(
        invalidateScript,
        names.map((tag) => markKey(namespace, tag)),
        [
          invalidationStamp(stamp),
          tags.length === 0 ? 0 : UNCARRIED_MS,
          told[0]?.channel ?? "",
          ...told.flatMap(({ before, after }) => [before, after]),
        ],
      );
      return {};
    },
    async raise(namespace, marks) {
      for (const [own, group] of Map.groupBy(marks, ({ tag }) => tag === "")) {
        const told = group.map(({ tag, stamp }) => ({
          ...announcer(own ? "namespace" : "tag", namespace, tag),
          stamp,
        }));
        await runForStamps(
          raiseScript,
          namespace,
          group.map(({ tag }) => tag),
          [
            own ? 0 : UNCARRIED_MS,
            told[0]?.channel ?? "",
            ...told.flatMap(({ stamp, before, after }) => [stamp, before, after]),
          ],
        );
      }
    },
    async acquireLease(namespace, key, token, expiresAt) {
      const live = Math.max(1, Math.ceil(expiresAt - clock.now()));
      const left = Number(await redis.run(leaseScript, [leaseKey(namespace, key)], [token, live]));
      return left === 0 ? { granted: true } : { granted: false, heldUntil: clock.now() + left };
    },
    async releaseLease(namespace, key, token) {
      await redis.run(releaseScript, [leaseKey(namespace, key)], [token]);
    },
    async recall(namespace, key, requestId) {
      const [answer] = await reader.fetch([requestKey(namespace, key, requestId)], []);
      return answer?.toString("utf8");
    },
    list,
  };
}

function resultOf(reply: unknown, stamps: readonly number[]): WriteResult {
  const text = String(reply);
  const version = Number(text);
  if (Number.isSafeInteger(version)) return { stored: true, version, stamps, layer: "redis" };
  if (text === "lease") return { stored: false, why: "lease", layer: "redis" };
  if (text.startsWith("forgotten ")) return { stored: false, why: "forgotten", layer: "redis" };
  const [, newest] = /^fenced (\d+)$/.exec(text) ?? [];
  if (newest !== undefined) return { stored: false, why: "fenced", newest: Number(newest), layer: "redis" };
  const [, have] = /^have (\d+)$/.exec(text) ?? [];
  return { stored: false, why: "version", ...(have === undefined ? {} : { version: Number(have) }), layer: "redis" };
}

function hasTags(record: CacheRecord | undefined): boolean {
  return record !== undefined && record.tags.length > 0;
}

function tagsOf(records: readonly (CacheRecord | undefined)[]): string[] {
  return [...new Set(records.flatMap((record) => record?.tags ?? []))];
}

function stampOf(value: Buffer | null | undefined): number | undefined {
  return value == null ? undefined : Number(value.toString("latin1"));
}

function tagsMatch(record: CacheRecord, stamps: ReadonlyMap<string, number | undefined> | undefined): boolean {
  return record.tags.every((tag, i) => stamps?.get(tag) === record.stamps[i + 1]);
}

function scriptGuard(guard: Guard): string {
  if (guard.kind === "none" && guard.ordered) return "ordered";
  return guard.kind === "version" && guard.orAbsent ? "seen" : guard.kind;
}

/** What someone else put in an entry's place counts as absent. */
function unlessNotText(error: unknown): undefined {
  if (!(error instanceof RedisReplyError)) throw error;
}

function asArgument(data: Uint8Array | string): Buffer | string {
  return typeof data === "string" ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

function escapeGlob(text: string): string {
  return text.replace(/[\\*?[\]]/g, "\\$&");
}

function parseCursor(cursor: string | undefined): { scan: string; after: string | undefined } {
  if (cursor === undefined) return { scan: "0", after: undefined };
  if (!cursor.startsWith(CURSOR)) throw new ListingInterruptedError();
  try {
    const parsed: unknown = JSON.parse(cursor.slice(CURSOR.length));
    if (Array.isArray(parsed)) {
      const [scan, after] = parsed as unknown[];
      if (typeof scan === "string" && typeof after === "string")
        return { scan, after: after === "" ? undefined : after };
    }
  } catch {
    // Refused below, like every other text that is not a cursor of ours.
  }
  throw invalidField("page_token", "is not a token that ListKeys returned");
}
