import { create, toBinary } from "@bufbuild/protobuf";
import { onTestFinished } from "vitest";
import type { Outcome } from "../../src/conversation/change/order.ts";
import { type RedisCopies, startRedisCopies } from "../../src/conversation/hot/redis-copies.ts";
import { createSqlCopiesTruth } from "../../src/conversation/hot/sql-copies-truth.ts";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import { createCurrent, type Seen } from "../../src/conversation/read/current.ts";
import { createSqlTruth } from "../../src/conversation/read/sql-truth.ts";
import type { Known } from "../../src/conversation/read/truth.ts";
import type { ConversationKey, Message, State } from "../../src/conversation/record/conversation.ts";
import { jsonTextOf, structOfJsonText } from "../../src/conversation/record/json.ts";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type CircuitBreaker, createBreaker } from "../../src/infra/circuit-breaker.ts";
import { type Clock, systemClock } from "../../src/infra/clock.ts";
import { createContact } from "../../src/infra/contact.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { createRedis, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { databaseIdOf } from "../../src/infra/sql-id.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { until } from "../support/until.ts";
import { DEFAULT_POLICY, message, openLedgers } from "./ledgers.ts";

/** A database with the tables, and where it is. */
export async function openTruth(
  kind: "sqlite" | "postgres" = "sqlite",
): Promise<{ database: Database; where: string }> {
  const ledgers = await openLedgers(kind);
  onTestFinished(() => ledgers[Symbol.asyncDispose]());
  return { database: ledgers.instances[0].database, where: ledgers.where };
}

/** Another connection to the same. */
export function openAgain(where: string): Database {
  const database = openTestDatabase("postgres", where);
  onTestFinished(() => database.close());
  return database;
}

export function openRedis(url: string, commandTimeoutMs: number): Redis {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const redis = createRedis({ mode: "single", nodes: [], connectTimeoutMs: 1_000, ...parsed, commandTimeoutMs });
  onTestFinished(() => redis.close());
  return redis;
}

export interface HotOptions {
  readonly database: Database;
  readonly redisUrl: string;
  readonly clock?: Clock;
  readonly documents?: boolean;
  /** Default: so rarely that it does not happen in a test. */
  readonly sweepMs?: number;
  readonly commandTimeoutMs?: number;
  readonly failureThreshold?: number;
  /** How long the breaker stays open. Default: until it is told to try. */
  readonly resetTimeoutMs?: number;
  readonly log?: (line: string) => void;
  /** A bug to be planted between the copies and Redis. */
  readonly wrap?: (redis: Redis) => Redis;
  /** Its database will hold it up for ever, so that its end is not to be waited for. */
  readonly isDoomed?: boolean;
}

/** One instance: a ledger and readers over one database, and copies in Redis. */
export interface HotInstance {
  readonly copies: RedisCopies;
  readonly ledger: Ledger;
  readonly redis: Redis;
  readonly breaker: CircuitBreaker;
  /** Stores `{"value": value}`. */
  save(id: string, value: number, messages?: readonly Message[]): ReturnType<Ledger["carryOut"]>;
  append(id: string, ...ids: readonly string[]): Promise<Outcome>;
  /** As a reader would be answered. */
  get(id: string): Promise<Seen<Known>>;
  /** The number that was saved last, and where it was found. */
  value(id: string): Promise<{ readonly value: number | undefined; readonly layer: string }>;
  /** The number as the copy says it, if there is one that is believed. */
  copied(id: string): Promise<number | undefined>;
  close(): Promise<void>;
}

export const SELDOM_MS = 3_600_000;

export const keyOf = (id: string): ConversationKey => ({ collection: "conversation", id });

export async function startHot(options: HotOptions): Promise<HotInstance> {
  const { database, redisUrl, clock = systemClock, documents = false, commandTimeoutMs = 500 } = options;
  const { wrap = (it) => it } = options;
  const redis = wrap(openRedis(redisUrl, commandTimeoutMs));
  const log = createLog({ level: options.log ? "info" : "silent", destination: { write: options.log ?? (() => {}) } });
  const breaker = createBreaker({
    failureThreshold: options.failureThreshold ?? 3,
    resetTimeoutMs: options.resetTimeoutMs ?? 1_000_000,
    halfOpenMaxCalls: 1,
    probe: async () => {
      await redis.ping();
    },
    clock: systemClock,
  });
  const copies = await startRedisCopies({
    ...{ redis, breaker, commandTimeoutMs, clock, documents, log },
    ...{ truth: createSqlCopiesTruth(database), truthId: await databaseIdOf(database) },
    sweepMs: options.sweepMs ?? SELDOM_MS,
  });
  const ledger = createSqlLedger({
    ...{ database, clock, copies },
    policyFor: () => DEFAULT_POLICY,
    onCommit: () => {},
  });
  const contact = createContact(() => database.ping(), clock.monotonic);
  const current = createCurrent({ truth: createSqlTruth(database), copies, contact, clock });
  let closing: Promise<void> | undefined;
  const close = async () => {
    if (!options.isDoomed) await ledger.close();
    await copies.close();
    breaker.close();
    await redis.close();
  };
  const closeOnce = () => {
    closing ??= close();
    return closing;
  };
  onTestFinished(closeOnce);
  const get = (id: string) => current.read(keyOf(id), { minVersion: 0, bypass: false });
  return {
    ...{ copies, ledger, redis, breaker, get },
    save: (id, value, messages = []) =>
      ledger.carryOut({ kind: "save", key: keyOf(id), requestId: "", state: stateWith(value), messages }),
    append: (id, ...ids) =>
      ledger.carryOut({
        ...{ kind: "append", key: keyOf(id), requestId: "", create: true },
        messages: ids.map((one) => said(one)),
      }),
    async value(id) {
      const { what, layer } = await get(id);
      return { value: valueIn(what?.held.presence === "live" ? what.state : undefined), layer };
    },
    copied: async (id) => valueIn((await copies.read(keyOf(id)))?.state),
    close: closeOnce,
  };
}

/** Waits until the instance believes copies. */
export async function believing(...instances: readonly HotInstance[]): Promise<void> {
  for (const { copies } of instances) {
    await until(() => copies.condition().believed && copies.condition().doubts === 0, {
      what: "copies to be believed",
    });
  }
}

export function stateWith(value: number, status = "open"): State {
  const bytes = structOfJsonText(JSON.stringify({ user_id: "u", status, value }));
  return { userId: "u", status, complexityLevel: "", confidenceScore: undefined, bytes };
}

/** A state of so many bytes, and a few more. */
export function stateOf(bytes: number): State {
  const text = "x".repeat(bytes);
  return {
    ...{ userId: "u", status: "open", complexityLevel: "", confidenceScore: undefined },
    bytes: structOfJsonText(JSON.stringify({ text })),
  };
}

export function saveState({ ledger }: HotInstance, id: string, state: State): ReturnType<Ledger["carryOut"]> {
  return ledger.carryOut({ kind: "save", key: keyOf(id), requestId: "", state, messages: [] });
}

function valueIn(state: Uint8Array | undefined): number | undefined {
  if (state === undefined) return undefined;
  const { value } = JSON.parse(jsonTextOf(state)) as { value?: number };
  return value;
}

/** A message as it is stored. */
export function said(id: string, content = `said ${id}`): Message {
  const createTime = { seconds: 1_700_000_000n, nanos: 123_456_000 };
  const body = toBinary(
    ConversationMessageSchema,
    create(ConversationMessageSchema, { id, role: "user", content, createTime }),
  );
  return { ...message(id, content), body };
}

/** Waits until each of them has a copy of this value. */
export async function copiesOf(instances: readonly HotInstance[], id: string, value: number): Promise<void> {
  for (const one of instances) {
    await until(async () => (await one.copied(id)) === value, { what: `a copy that says ${value}` });
  }
}
