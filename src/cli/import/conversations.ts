import type { Environment } from "../../config.ts";
import { ApiError, type ApiOptions } from "../client/api.ts";
import { type ServerValues, serverOf } from "../client/server-options.ts";
import { openSession } from "../client/session.ts";
import { UsageError } from "../usage.ts";
import { createBudget } from "./budget.ts";
import { type ConversationAccount, createConversationAccount } from "./conversation-account.ts";
import { createDelivery, type Sendable } from "./conversation-delivery.ts";
import { documentOf, isOwnCopy } from "./conversation-document.ts";
import { openConversationFile } from "./conversation-file.ts";
import { type JsonRules, Unfit } from "./conversation-json.ts";
import { openConversationRedis } from "./conversation-redis.ts";
import { type ConversationSource, DEFAULT_COLLECTIONS, type Place, prefixesOf } from "./conversation-source.ts";
import { type Onlooker, onSource, seeThrough } from "./undertaking.ts";

export interface ConversationValues extends ServerValues {
  readonly "redis-url"?: string | undefined;
  readonly file?: string | undefined;
  readonly collection?: readonly string[] | undefined;
  readonly ttl?: string | undefined;
  readonly update?: boolean | undefined;
  readonly "large-integers-as-text"?: boolean | undefined;
  readonly rejects?: string | undefined;
  readonly "dry-run"?: boolean | undefined;
}

export interface ConversationContext extends Onlooker {
  readonly environment: Environment;
}

/** So many documents are under way at once: their commits are shared. */
const AT_ONCE = 16;
/** Of what was read and is not done with; parsed, it takes a few times as much. */
const BYTES_AT_ONCE = 32 * 1024 * 1024;
const SHOWN = 3;

/** Brings the documents of the old system in. Resolves with the exit code: 0 when none was refused. */
export async function importConversations(values: ConversationValues, context: ConversationContext): Promise<number> {
  const { environment, remark } = context;
  const isDryRun = values["dry-run"] ?? false;
  const keepsTtl = isTtlKept(values.ttl);
  const open = sourceOf(values, environment);
  const server = isDryRun ? undefined : await serverOf(values, environment);
  const work = async () => {
    await using parts = new AsyncDisposableStack();
    const source = parts.adopt(await open(), (it) => it.close());
    const account = parts.adopt(createConversationAccount(values.rejects), (it) => it.close());
    remark(source.name);
    for (const one of source.remarks) remark(one);
    const rules = { largeIntegersAsText: values["large-integers-as-text"] ?? false };
    const job = { source, account, rules };
    const carryOut = () =>
      server === undefined
        ? rehearse(job, remark)
        : importAll({ ...job, keepsTtl, updates: values.update ?? false }, server, remark);
    const undertaking = {
      carryOut,
      news: () => account.read,
      progress: () => account.progress(source.total),
      account: () => account.lines(isDryRun),
      refused: () => account.refused,
    };
    return await seeThrough(undertaking, context);
  };
  return onSource(work, context);
}

function isTtlKept(ttl = "keep"): boolean {
  if (ttl === "keep" || ttl === "policy") return ttl === "keep";
  throw new UsageError(`--ttl is ${JSON.stringify(ttl)}; wanted keep or policy`);
}

function sourceOf(values: ConversationValues, environment: Environment): () => Promise<ConversationSource> {
  const { file: path, "redis-url": redisUrl } = values;
  const given = values.collection ?? [];
  const prefixes = prefixesOf(given);
  if (path === undefined) return () => openConversationRedis({ redisUrl, environment, prefixes });
  if (redisUrl !== undefined) throw new UsageError("--file and --redis-url are two sources: give one of them");
  const [named, ...others] = given.length === 0 ? DEFAULT_COLLECTIONS : prefixes.map(({ collection }) => collection);
  const keysAreIds = given.length === 1;
  const collection = keysAreIds || given.length === 0 || others.length === 0 ? named : undefined;
  return () => openConversationFile({ path, prefixes, collection, keysAreIds });
}

interface Job {
  readonly source: ConversationSource;
  readonly account: ConversationAccount;
  readonly rules: JsonRules;
}

interface Import extends Job {
  readonly keepsTtl: boolean;
  readonly updates: boolean;
}

async function importAll(job: Import, server: ApiOptions, remark: (line: string) => void): Promise<void> {
  const { account, source, keepsTtl, updates } = job;
  const { api, patience } = openSession(server, remark);
  try {
    const deliver = createDelivery({ api, patience, isAlive: source.isAlive, keepsTtl, updates });
    await eachPlace(job, async (sendable) => account.add(await deliver(sendable)));
  } finally {
    api.close();
  }
}

/** Reads and converts all, and sends nothing. */
async function rehearse(job: Job, remark: (line: string) => void): Promise<void> {
  let shown = 0;
  await eachPlace(job, async ({ collection, id, document }) => {
    job.account.rehearsed();
    if (shown++ >= SHOWN) return;
    const example = { collection, id, state: document.state, messages: document.messages.length };
    remark(`such as ${JSON.stringify(example)}`);
  });
}

type Use = (sendable: Sendable) => Promise<void>;

/** Reads several places at once, until all were seen or something failed for good. */
async function eachPlace(job: Job, use: Use): Promise<void> {
  const places = job.source.places()[Symbol.asyncIterator]();
  const budget = createBudget(BYTES_AT_ONCE);
  let isOver = false;
  const work = async () => {
    try {
      while (!isOver) {
        const { done, value } = await places.next();
        if (done) return;
        await takeOn(value, job, budget.take, use);
      }
    } finally {
      isOver = true;
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  await places.return?.();
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

async function takeOn(
  place: Place,
  { account, rules }: Job,
  take: (bytes: number) => Promise<() => void>,
  use: Use,
): Promise<void> {
  let release = () => {};
  try {
    release = await take(await place.bytes());
    const loaded = await place.load();
    if (loaded === undefined) account.add("gone from the source");
    else if (isOwnCopy(loaded.document)) account.add("own");
    else await use({ ...loaded, document: documentOf(loaded.document, rules) });
  } catch (error) {
    if (error instanceof Unfit) account.refuse(place, error.reason, error.message);
    else if (isRefusal(error)) account.refuse(place, error.reason || error.code, error.details);
    else throw error;
  } finally {
    release();
  }
}

/** What is wrong with one document; anything else is wrong with the server, or with who calls it. */
const REFUSALS: ReadonlySet<string> = new Set([
  "INVALID_ARGUMENT",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ALREADY_EXISTS",
  "OUT_OF_RANGE",
]);

function isRefusal(error: unknown): error is ApiError {
  return error instanceof ApiError && REFUSALS.has(error.code);
}
