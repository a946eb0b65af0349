import { CacheService, SetOutcome } from "../../src/gen/holdfast/v1/cache_pb.js";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { CallFailed, type RpcClient } from "../support/rpc-client.ts";
import { monotonicMs, type Said, type SeenGrant, type SeenWrite, tokenOf, type WriteKind } from "./lock-history.ts";

/* What holders of locks write under them through the service, and what of it they find there. */

const { method: cache } = CacheService;
const { method } = ConversationStateService;

export interface WriteKinds {
  readonly kinds: readonly WriteKind[];
  /** Whose values are found as they were written last; of a durable namespace Redis may have older copies for a while. */
  readonly readable: readonly WriteKind[];
}

/** Of each kind that is cached, under each lock: so that what is written late is not soon written over. */
const PLACES = 3;

export interface WriteChoice {
  readonly kind: WriteKind;
  /** Of what is written to. */
  readonly name: string;
  /** Of the cache: whatever is there is replaced, without being compared before. */
  readonly isBlind: boolean;
}

export function chooseWrite(kinds: readonly WriteKind[], lock: string, random: (below: number) => number): WriteChoice {
  const kind = kinds[random(kinds.length)] ?? "message";
  const isInCache = kind === "durable" || kind === "cached";
  return { kind, name: isInCache ? `${lock}/${random(PLACES)}` : lock, isBlind: random(2) === 0 };
}

export interface WriterOptions extends Pick<WriteKinds, "readable"> {
  readonly client: RpcClient;
  readonly say: (said: Said) => void;
}

/** Each call writes something under the lock, whether that is still held or not, and says what came of it. */
export function createWriter(
  { client, readable, say }: WriterOptions,
  { lock, token, holder }: Pick<SeenGrant, "lock" | "token" | "holder">,
): (choice: WriteChoice) => Promise<void> {
  const fencing = { lock, token: BigInt(token) };
  /** What the cache had last: so it is noticed when somebody else has written since. */
  const versions = new Map<string, bigint>();
  let count = 0;

  /** The version it was stored under; undefined where it was not, for another reason than its token. */
  async function store({ kind, name, isBlind }: WriteChoice, value: string): Promise<bigint | undefined> {
    const messages = [{ id: value, role: "user", content: "under a lock" }];
    switch (kind) {
      case "message":
        return (await client.call(method.appendMessages, { id: name, messages, create: true, fencing })).reply.version;
      case "state":
        return (await client.call(method.save, { id: name, state: { value }, messages, fencing })).reply.summary
          ?.version;
      default:
        return (isBlind ? undefined : await swap(kind, name, value)) ?? set(kind, name, value);
    }
  }

  function entryOf(kind: "durable" | "cached", key: string, value: string) {
    return { namespace: kind, key, value: { kind: { case: "text" as const, value } }, fencing };
  }

  async function set(kind: "durable" | "cached", name: string, value: string): Promise<bigint | undefined> {
    const { reply } = await client.call(cache.set, entryOf(kind, name, value));
    if (reply.outcome !== SetOutcome.STORED) return undefined;
    versions.set(keyOf(kind, name), reply.version);
    return reply.version;
  }

  async function swap(kind: "durable" | "cached", name: string, value: string): Promise<bigint | undefined> {
    const key = keyOf(kind, name);
    const began = monotonicMs();
    // Who knows no version reads it so.
    const wanted = { ...entryOf(kind, name, value), expectedVersion: versions.get(key) ?? 1n };
    const { reply, degraded } = await client.call(cache.compareAndSet, wanted);
    versions.set(key, reply.version);
    const found = reply.current?.value?.kind;
    if (found?.case === "text" && !degraded && readable.includes(kind)) {
      const read = { lock, key, value: found.value, token: tokenOf(found.value) };
      say({ said: "read", ...read, began, ended: monotonicMs() });
    }
    return reply.swapped ? reply.version : undefined;
  }

  return async (choice) => {
    const { kind } = choice;
    const key = keyOf(kind, choice.name);
    const value = `${token} ${holder} ${count++}`;
    const began = monotonicMs();
    const wrote = (stored: boolean | undefined, more: Pick<SeenWrite, "reason" | "version">) => {
      const of = { lock, key, token, holder, kind, value, began, ended: monotonicMs(), stored };
      say({ said: "wrote", ...of, ...more });
    };
    try {
      const version = await store(choice, value);
      if (version !== undefined) wrote(true, { version: Number(version) });
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      const { reason } = error;
      const isRefused = reason.startsWith("FENCING_TOKEN_");
      wrote(isRefused ? false : undefined, { reason });
      // Who was paused past a lease does not stop at that either.
      if (!isRefused) say(failureOf(error));
    }
  };
}

function keyOf(kind: WriteKind, name: string): string {
  return `${kind}/${name}`;
}

/** What a key of `kind` is called there. */
export function nameIn(kind: WriteKind, key: string): string {
  return key.slice(keyOf(kind, "").length);
}

export function failureOf(error: CallFailed): Said {
  const why = error.code === "INTERNAL" ? error.message : `${error.code} ${error.reason}`;
  return { said: "failed", why, atMs: monotonicMs() };
}
