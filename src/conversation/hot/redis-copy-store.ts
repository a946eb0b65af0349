import { randomBytes } from "node:crypto";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Guarded } from "../../infra/guarded.ts";
import type { Redis, RedisArgument } from "../../infra/redis.ts";
import type { ConversationKey, Held } from "../record/conversation.ts";
import { decodeCopy, decodeHead, encodeCopy, encodeHeld, FIRST_LOOK, lifeText, TOKEN } from "./copy-bytes.ts";
import { copyKeys } from "./copy-keys.ts";
import { createCopyReader } from "./copy-reader.ts";
import {
  type CopyStore,
  type Covered,
  FILLED,
  LONGEST_COPY_MS,
  LONGEST_DOCUMENT_MS,
  type Stamped,
} from "./copy-store.ts";
import type { Changed } from "./hot-copies.ts";
import { createCopyCalls } from "./redis-copy-calls.ts";
import { coverScript, documentScript, dropScript, fillScript, uncoverScript } from "./redis-copy-scripts.ts";
import { createRedisLives } from "./redis-lives.ts";
import { createRoom } from "./room.ts";

export interface RedisCopyStoreOptions {
  readonly redis: Redis;
  /** What every command goes through. */
  readonly guarded: Guarded;
  /** What covers go through: all writers wait for them. */
  readonly guardedCover: Guarded;
  /** No reader waits longer than this. */
  readonly readTimeoutMs: number;
  readonly clock: Clock;
  /** Names the truth: what was copied of another one is not believed. */
  readonly truthId: string;
}

/** How long a cover lasts if nobody lifts it: see how long it is relied on in copies.ts. */
const COVER_MS = 120_000;
/** Dropped at the same time, in a cluster by as many calls. */
const MOST_DROPPED = 100;
/*
 * Covers have to get through beside all that is read and written, so there is never much of it on the way. The copy of a larger state
 * is without it: who wants the state asks the truth.
 */
const LARGEST_STATE = 256 * 1024;
const ROOM_TO_FILL = 2 * 1024 * 1024;
/** When so much waits for that room, what comes is stored without its state. */
const MOST_WAITING = 16 * 1024 * 1024;
const NO_STATE = Buffer.alloc(0);

export function createRedisCopyStore(options: RedisCopyStoreOptions): CopyStore {
  const { redis, guarded, guardedCover, readTimeoutMs, clock, truthId } = options;
  const reader = createCopyReader({ redis, guarded, timeoutMs: readTimeoutMs, largest: LARGEST_STATE });
  const lifeAt = createRedisLives(redis, truthId);
  const roomToFill = createRoom(ROOM_TO_FILL);
  const isCluster = redis.mode === "cluster";
  const { call, tooLateAt, inTime, portions, each } = createCopyCalls({ redis, lifeAt, clock });
  function lifeOf(key: ConversationKey): string | undefined {
    return lifeAt(copyKeys(key).copy);
  }

  const leftMs = (endsUs: number) => Math.ceil(endsUs / 1000 - clock.now());

  /** Never shorter than a cover, though it have expired by then: else an older one that comes late would find nothing in its way. */
  function livesMs({ expiresUs, keptUntilUs }: Held): number {
    const endsUs = expiresUs ?? keptUntilUs;
    if (endsUs === undefined) return LONGEST_COPY_MS;
    return Math.max(COVER_MS, Math.min(LONGEST_COPY_MS, leftMs(endsUs)));
  }

  function fillArguments({ held, state }: Changed, life: string): readonly RedisArgument[] {
    const lives = livesMs(held);
    const bytes = state === undefined && held.presence !== "live" ? NO_STATE : state;
    if (bytes !== undefined) {
      const copy = encodeCopy({ held, state: bytes }, life);
      reader.note(copyKeys(held).copy, copy.length);
      return [held.stamp, lives, copy, "", ""];
    }
    return [held.stamp, lives, "", encodeHeld(held), String(held.stateVersion).padStart(16, "0")];
  }

  async function coverPortion(portion: readonly Stamped[]): Promise<Covered[]> {
    const began = clock.monotonic();
    const token = randomBytes(TOKEN / 2).toString("hex");
    const stamps = portion.map(({ stamp }) => stamp);
    const args = (now: string) => [lifeText(now), tooLateAt(began, now), COVER_MS, token, ...stamps];
    const { values, life } = await inTime(
      began,
      () => call(coverScript, portion, args, guardedCover),
      (reply) => reply.values.length === 0,
    );
    if (values.length === 0) throw new UnavailableError("REDIS_TIMEOUT", "a cover was held up on its way");
    return portion.map(({ collection, id, stamp }, at): Covered => {
      const [before, until, other] = values.slice(at * 3);
      return {
        ...{ collection, id, stamp, token, life },
        before: { stamp: Number(before), until: Number(until), token: String(other) },
      };
    });
  }

  /** What is sent of it. */
  function fitting({ held, state }: Changed): Changed {
    return { held, state: state !== undefined && state.length > LARGEST_STATE ? NO_STATE : state };
  }

  function fillWhenThereIsRoom(copies: readonly Changed[], isChange: boolean) {
    const began = clock.monotonic();
    const bytes = copies.reduce((sum, { state }) => sum + (state?.length ?? 0), 0);
    if (roomToFill.waiting + bytes <= MOST_WAITING) {
      return roomToFill.run(bytes, () => fillPortion(copies, isChange, began));
    }
    const stateless = copies.map(({ held }): Changed => ({ held, state: undefined }));
    return fillPortion(stateless, isChange, began);
  }

  async function fillPortion(copies: readonly Changed[], isChange: boolean, began: number) {
    const keys = copies.map(({ held }) => held);
    const args = (now: string) => [
      ...[lifeText(now), tooLateAt(began, now), isChange ? 1 : 0],
      ...copies.flatMap((copy) => fillArguments(copy, now)),
    ];
    const attempt = async () => {
      const { values, life } = await call(fillScript, keys, args, guarded);
      return values.map((value) => ({ filled: FILLED[Number(value)] ?? "late", life }));
    };
    return inTime(began, attempt, (results) => results.some(({ filled }) => filled === "late"));
  }

  async function readHead(key: ConversationKey): Promise<Held | undefined> {
    const life = lifeOf(key);
    if (life === undefined || life === "") return undefined;
    const head = await guarded(() => redis.commandBuffers("getrange", copyKeys(key).copy, 0, FIRST_LOOK - 1));
    if (!Buffer.isBuffer(head) || lifeOf(key) !== life) return undefined;
    const held = decodeHead(head, key, life);
    return held === "longer" ? (await read(key))?.held : held;
  }

  async function read(key: ConversationKey) {
    const { copy } = copyKeys(key);
    const life = lifeAt(copy);
    if (life === undefined || life === "") return undefined;
    const bytes = await reader.read(copy);
    // Where it was asked for, and where the answer came from.
    if (bytes == null || lifeAt(copy) !== life) return undefined;
    return decodeCopy(bytes, key, life);
  }

  return {
    lifeOf,
    read,
    readHeld: readHead,
    cover: (next) => each(portions(next), coverPortion),
    uncover: (covers) =>
      each(portions(covers), async (portion) => {
        const args = portion.flatMap(({ token, before }) => [token, before.stamp, before.until, before.token]);
        const { values } = await call(uncoverScript, portion, () => args, guarded);
        return values.map((value) => value === 1);
      }),
    fill: (copies, isChange) => {
      const wanted = portions(
        copies.map((copy) => ({ ...fitting(copy), collection: copy.held.collection, id: copy.held.id })),
        ({ state }) => state?.length ?? 0,
      );
      return each(wanted, (portion) => fillWhenThereIsRoom(portion, isChange));
    },
    async drop(older) {
      for (let at = 0; at < older.length; at += MOST_DROPPED) {
        const dropped = await each(portions(older.slice(at, at + MOST_DROPPED)), async (portion) => {
          const stamps = portion.map(({ stamp }) => stamp);
          await call(dropScript, portion, (life) => [lifeText(life), COVER_MS, ...stamps], guarded);
          return portion;
        });
        for (const result of dropped) if (result.status === "rejected") throw result.reason;
      }
    },
    async putDocument(held, document) {
      const { copy, document: name, together } = copyKeys(held);
      if (isCluster && !together) return false;
      const lives = Math.min(LONGEST_DOCUMENT_MS, leftMs(held.expiresUs ?? Number.POSITIVE_INFINITY));
      if (lives <= 0) return false;
      const life = lifeAt(copy);
      if (life === undefined) return false;
      const text = Buffer.from(document.buffer, document.byteOffset, document.byteLength);
      const reply = await guarded(() =>
        redis.run(documentScript, [copy, name], [lifeText(life), held.stamp, lives, text]),
      );
      return Array.isArray(reply) && reply[1] === 1;
    },
  };
}
