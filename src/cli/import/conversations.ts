import { ConfigError, type Environment } from "../../config.ts";
import { ConversationStateService } from "../../gen/holdfast/v1/conversation_pb.js";
import { type Api, ApiError, type ApiOptions } from "../client/api.ts";
import { type ServerValues, serverOf } from "../client/server-options.ts";
import { openSession } from "../client/session.ts";
import { UsageError } from "../usage.ts";
import { createConversationAccount } from "./conversation-account.ts";
import { createDelivery } from "./conversation-delivery.ts";
import { openConversationFile } from "./conversation-file.ts";
import { eachPlace } from "./conversation-places.ts";
import { openConversationRedis } from "./conversation-redis.ts";
import { type ConversationSource, DEFAULT_COLLECTIONS, prefixesOf, type Sendable } from "./conversation-source.ts";
import { createInterruption } from "./interruption.ts";
import { type Onlooker, onSource, seeThrough } from "./undertaking.ts";

export interface ConversationValues extends ServerValues {
  readonly "redis-url"?: string | undefined;
  readonly file?: string | undefined;
  readonly collection?: readonly string[] | undefined;
  readonly ttl?: string | undefined;
  readonly update?: boolean | undefined;
  readonly "large-integers-as-text"?: boolean | undefined;
  readonly rejects?: string | undefined;
  readonly verbose?: boolean | undefined;
  readonly "dry-run"?: boolean | undefined;
}

export interface ConversationContext extends Onlooker {
  readonly environment: Environment;
}

const SHOWN = 3;
const PROBE_MS = 5000;

/** Brings the documents of the old system in. Resolves with the exit code: 0 when none was refused. */
export async function importConversations(values: ConversationValues, context: ConversationContext): Promise<number> {
  const { environment, remark } = context;
  const keepsTtl = isTtlKept(values.ttl);
  const open = sourceOf(values, environment);
  const isRehearsal = values["dry-run"] ?? false;
  const server = await (isRehearsal ? serverIfKnown(values, environment) : serverOf(values, environment));
  const work = async () => {
    await using parts = new AsyncDisposableStack();
    const { signal } = parts.use(createInterruption());
    const source = parts.adopt(await open(signal), (it) => it.close());
    const onOddity = values.verbose ? remark : undefined;
    const account = parts.adopt(createConversationAccount({ rejects: values.rejects, onOddity }), (it) => it.close());
    remark(source.name);
    for (const one of source.remarks) remark(one);
    const rules = {
      largeIntegersAsText: values["large-integers-as-text"] ?? false,
      anyLayout: (values.collection ?? []).length > 0,
    };
    const session = server && openSession(server, remark, signal);
    parts.defer(() => session?.api.close());
    const isAsked = session !== undefined && (!isRehearsal || (await answers(session.api, remark)));
    const deliver =
      isAsked &&
      createDelivery({
        ...{ ...session, isAlive: source.isAlive, keepsTtl, updates: values.update ?? false, isRehearsal, signal },
      });
    const show = isRehearsal ? createShow(remark) : undefined;
    const use = async (sendable: Sendable, where: string) => {
      show?.(sendable);
      if (deliver) account.add(await deliver(sendable), where);
      else account.sendable();
    };
    const scope = !isRehearsal ? "import" : isAsked ? "rehearsal" : "reading";
    const undertaking = {
      carryOut: () => eachPlace({ source, account, rules, signal, use }),
      news: () => account.read,
      progress: () => account.progress(source.total),
      account: () => account.lines(scope),
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

function sourceOf(
  values: ConversationValues,
  environment: Environment,
): (signal: AbortSignal) => Promise<ConversationSource> {
  const { file: path, "redis-url": redisUrl } = values;
  const given = values.collection ?? [];
  const prefixes = prefixesOf(given);
  if (path === undefined) return (signal) => openConversationRedis({ redisUrl, environment, prefixes, signal });
  if (redisUrl !== undefined) throw new UsageError("--file and --redis-url are two sources: give one of them");
  const [named, ...others] = given.length === 0 ? DEFAULT_COLLECTIONS : prefixes.map(({ collection }) => collection);
  const keysAreIds = given.length === 1;
  const collection = keysAreIds || given.length === 0 || others.length === 0 ? named : undefined;
  return (signal) => openConversationFile({ path, prefixes, collection, keysAreIds, signal });
}

/** For a rehearsal, which can do without one. */
async function serverIfKnown(values: ServerValues, environment: Environment): Promise<ApiOptions | undefined> {
  try {
    return await serverOf(values, environment);
  } catch (error) {
    if (values.address === undefined && (error instanceof UsageError || error instanceof ConfigError)) return undefined;
    throw error;
  }
}

/** Whether a server is there that tells what it has. */
async function answers(api: Api, remark: (line: string) => void): Promise<boolean> {
  try {
    await api.call(ConversationStateService.method.exists, { id: "any" }, PROBE_MS);
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    remark(`only the source is looked at, since no server says what it has: ${error.message}`);
    return false;
  }
}

/** Shows the first few. */
function createShow(remark: (line: string) => void): (sendable: Sendable) => void {
  let shown = 0;
  return ({ collection, id, document }) => {
    if (shown++ >= SHOWN) return;
    remark(`such as ${JSON.stringify({ collection, id, state: document.state, messages: document.messages.length })}`);
  };
}
