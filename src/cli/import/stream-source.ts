import type { Redis } from "../../infra/redis.ts";
import { producerFor, sequenceOfEntry } from "./identity.ts";
import { connectToRedis, type RedisAccess, reachRedis } from "./redis-access.ts";
import type { Mapping } from "./roles.ts";
import {
  checkMapped,
  type Likeness,
  likenessOf,
  remarkOf,
  type Source,
  SourceError,
  type SourceRow,
  shown,
} from "./source.ts";
import { type Moment, momentOf } from "./values.ts";

export interface StreamSourceOptions extends RedisAccess {
  readonly key: string;
  /** Whether records that are safe are taken out of the stream. */
  readonly remove: boolean;
  readonly mapping: Mapping;
}

export const DEFAULT_STREAM = "audit_queue:stream";

const PAGE = 500;
/** In 2009: Redis has made no entry before. */
const FIRST_REDIS_MS = 1_235_000_000_000;
/** What the server's own entries consist of, so that the stream can be imported in place. */
const OWN_FIELDS = ["producer", "first", "last", "leaves"];

/** The entries of a Redis stream. */
export async function openStreamSource(options: StreamSourceOptions): Promise<Source> {
  const { key, mapping, remove } = options;
  const redis = await connectToRedis(options);
  try {
    await reachRedis(redis);
    const type = await redis.command("TYPE", key);
    if (type !== "stream") {
      throw new SourceError(
        `${key} is not a stream in this Redis: ${type === "none" ? "there is no such key" : `it is a ${type}`}`,
      );
    }
    // What comes later stays for the next import: the server itself may be adding to this very stream.
    const end = lastId(await redis.command("XREVRANGE", key, "+", "-", "COUNT", "1"));
    const length = Number(await redis.command("XLEN", key));
    const begin = (await page(redis, key, "-", end)).filter(({ fields }) => !isOwn(fields));
    const likeness = likenessOf(
      begin.map(({ fields }) => fields),
      mapping,
    );
    checkMapped(likeness, mapping);
    const [first] = begin;
    if (first !== undefined && likeness.score === 0) {
      throw new SourceError(
        `the entries of ${key} do not look like audit records; --map says which field is which, such as --map actor=who. ` +
          `The first, ${first.id}: ${shown(JSON.stringify(first.fields), 500)}`,
      );
    }
    let own = 0;
    return {
      name: `the stream ${key}`,
      producer: producerFor(key),
      remarks: first === undefined ? [] : [remarkOf(likeness), ...timeRemarks(likeness)],
      likeness,
      isTimed: true,
      total: length,
      passedOver: () => own,
      async *rows(): AsyncGenerator<SourceRow> {
        for (let from = "-"; ; ) {
          const entries = await page(redis, key, from, end);
          for (const { id, fields } of entries) {
            if (isOwn(fields)) own++;
            else {
              yield {
                where: `entry ${id}`,
                sequence: sequenceOfEntry(id),
                fields,
                time: queuedAt(id),
                raw: fields,
                id,
              };
            }
          }
          const last = entries.at(-1);
          if (last === undefined) return;
          from = `(${last.id}`;
        }
      },
      remove: remove
        ? async (rows) => {
            const ids = rows.flatMap(({ id }) => id ?? []);
            if (ids.length > 0) await redis.command("XDEL", key, ...ids);
          }
        : undefined,
      close: () => redis.close(),
    };
  } catch (error) {
    await redis.close();
    throw error;
  }
}

interface Entry {
  readonly id: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** Ids that Redis makes begin with a time in milliseconds; a small number is one that somebody made up. */
function queuedAt(id: string): Moment | undefined {
  const [ms = ""] = id.split("-");
  return Number(ms) >= FIRST_REDIS_MS ? momentOf(ms) : undefined;
}

function timeRemarks({ roles }: Likeness): string[] {
  return roles.has("time") ? [] : ["its entries have the times when they were queued, as their ids say"];
}

async function page(redis: Redis, key: string, from: string, end: string): Promise<Entry[]> {
  return entriesOf(await redis.command("XRANGE", key, from, end, "COUNT", String(PAGE)));
}

function lastId(reply: unknown): string {
  return entriesOf(reply)[0]?.id ?? "0-1";
}

function entriesOf(reply: unknown): Entry[] {
  if (!Array.isArray(reply)) throw new TypeError("Redis did not answer with entries of a stream");
  return reply.flatMap((item: unknown): Entry[] => {
    if (!Array.isArray(item) || !Array.isArray(item[1])) return [];
    const flat = item[1].map(String);
    const pairs = flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1] ?? ""] as const] : []));
    return [{ id: String(item[0]), fields: Object.fromEntries(pairs) }];
  });
}

function isOwn(fields: Entry["fields"]): boolean {
  return OWN_FIELDS.every((name) => name in fields);
}
