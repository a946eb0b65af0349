import type { ServedBy } from "../infra/call.ts";
import type { Clock } from "../infra/clock.ts";
import { Failure } from "../infra/failure.ts";
import { type Fence, FencingTokenStaleError } from "../infra/fencing.ts";
import type { NamedRequest } from "../infra/named-request.ts";
import type { Namespace } from "./namespace.ts";
import type { Reads } from "./reads.ts";
import type { CacheRecord, CacheValue } from "./record.ts";
import { createOwnAnswers, recalledAnswer, rememberedAnswer } from "./request-memory.ts";
import type { AskedFence, CacheStore, Write, WriteResult } from "./store.ts";
import type { Versions } from "./version.ts";

/** What every answer to a write says. */
export interface Answered {
  readonly layer: ServedBy;
  readonly degraded: boolean;
}

export interface Decision<T> {
  readonly store?: {
    readonly value: CacheValue;
    readonly tags: readonly string[];
    readonly createdAt: number;
    readonly expiresAt: number | undefined;
    readonly staleUntil: number | undefined;
  };
  /** What to remember for a retry; when it is stored, and the request names itself. */
  readonly remember?: object;
  readonly answer: T;
}

/** How a retry is recognised, and what was remembered for it read back. */
export interface Replay<T> {
  readonly request: NamedRequest;
  parse(remembered: unknown): T;
}

/** `version` is what the record would be stored under. */
export type Decide<T> = (current: CacheRecord | undefined, version: number) => Decision<T>;

/** Changes of a key that depend on what it holds. */
export interface Updates {
  /**
   * Reads the key, lets `decide` say what to store in its place (undefined: nothing), and stores that only if nothing changed
   * in between; else it begins again. `decide` may run several times. With `replay`, a request answered before is answered alike,
   * whatever has become of its fence.
   */
  update<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay?: Replay<T>,
    fence?: Fence,
  ): Promise<T & Answered>;
  /** The same for a fence of which SQL was asked already. */
  inTurn<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay: Replay<T> | undefined,
    fence: AskedFence | undefined,
  ): Promise<T & Answered>;
}

export interface UpdatesOptions {
  readonly reads: Reads;
  readonly storeOf: (namespace: Namespace) => CacheStore;
  readonly versions: Versions;
  readonly clock: Clock;
  readonly ask: (fence: Fence) => Promise<AskedFence>;
  readonly commit: (namespace: Namespace, writes: readonly Write[]) => Promise<WriteResult[]>;
}

/** For how long a request id answers a retry. */
const REQUEST_MEMORY_MS = 600_000;
/** Attempts to change a contended key before the caller is told to come back. */
const ATTEMPTS = 64;

export function createUpdates({ reads, storeOf, versions, clock, ask, commit }: UpdatesOptions): Updates {
  const queues = new Map<string, Promise<unknown>>();
  const ownAnswers = createOwnAnswers(clock);

  function update<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay?: Replay<T>,
    fence?: Fence,
  ): Promise<T & Answered> {
    if (fence === undefined) return inTurn(namespace, key, decide, replay, undefined);
    return updateFenced(namespace, key, decide, replay, fence);
  }

  async function updateFenced<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay: Replay<T> | undefined,
    fence: Fence,
  ): Promise<T & Answered> {
    const store = storeOf(namespace);
    const answered = replay && (await recall(store, namespace, key, replay));
    if (answered !== undefined) return { ...answered, layer: store.layer, degraded: false };
    // Also for what comes to no write: who has lost the lock must not hear that the version was all that was wrong.
    return inTurn(namespace, key, decide, replay, await ask(fence));
  }

  /** One at a time per key in this process, so that only other instances can get in between. */
  function inTurn<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay: Replay<T> | undefined,
    fence: AskedFence | undefined,
  ): Promise<T & Answered> {
    const name = `${namespace.name}/${key}`;
    const turn = (queues.get(name) ?? Promise.resolve()).then(
      () => attempt(namespace, key, decide, replay, fence),
      () => attempt(namespace, key, decide, replay, fence),
    );
    queues.set(name, turn);
    const done = () => {
      if (queues.get(name) === turn) queues.delete(name);
    };
    turn.then(done, done);
    return turn;
  }

  async function attempt<T>(
    namespace: Namespace,
    key: string,
    decide: Decide<T>,
    replay: Replay<T> | undefined,
    fence: AskedFence | undefined,
  ): Promise<T & Answered> {
    const store = storeOf(namespace);
    for (let i = 0; i < ATTEMPTS; i++) {
      const grantedAt = versions.next();
      const [found] = await reads.look(namespace, [key]);
      if (found === undefined) throw new Error("a read got no result");
      // Looked for each time: what won the race against us may have been the first attempt of this very request. And only after
      // the key was read: an attempt that is stored later than this changes the version seen, so ours is refused.
      const answered = replay && (await recall(store, namespace, key, replay));
      if (answered !== undefined) return { ...answered, layer: store.layer, degraded: false };
      const { seen, layer, degraded } = found;
      versions.observe(seen);
      const version = versions.next();
      const decision = decide(found.outcome === "hit" ? found.record : undefined, version);
      const { store: stored, remember, answer } = decision;
      if (stored === undefined) return { ...answer, layer, degraded };
      const request = remember && replay && requestOf(replay.request, remember);
      const [result] = await commit(namespace, [
        {
          key,
          draft: { ...stored, version, deleted: false },
          guard: { kind: "version", seen, grantedAt },
          fence,
          announce: "set",
          ...(request === undefined ? {} : { request }),
        },
      ]);
      if (!result?.stored) {
        const error = result && staleness(result, fence);
        if (error !== undefined) throw error;
        continue;
      }
      if (request !== undefined) ownAnswers.add(namespace.name, key, request.id, request.answer, request.expiresAt);
      return { ...answer, layer: result.layer, degraded: degraded || (result.degraded ?? false) };
    }
    throw new ContendedError(key);
  }

  /** What was answered to the first attempt of this request. */
  async function recall<T>(store: CacheStore, { name }: Namespace, key: string, { request, parse }: Replay<T>) {
    const text = ownAnswers.get(name, key, request.id) ?? (await store.recall(name, key, request.id));
    return text === undefined ? undefined : parse(recalledAnswer(request, text));
  }

  function requestOf(request: NamedRequest, remember: object): Exclude<Write["request"], undefined> {
    const answer = rememberedAnswer(request, remember);
    return { id: request.id, answer, expiresAt: clock.now() + REQUEST_MEMORY_MS };
  }

  return { update, inTurn };
}

/** The error of a write that came after one with a newer token. */
export function staleness(result: WriteResult, fence: Fence | undefined): FencingTokenStaleError | undefined {
  if (result.stored || result.why !== "fenced" || fence === undefined) return undefined;
  return new FencingTokenStaleError(fence, result.newest);
}

export class ContendedError extends Failure {
  constructor(key: string) {
    super("conflict", "KEY_CONTENDED", `the key changed under each of ${ATTEMPTS} attempts`, {
      metadata: { key },
      retryAfterMs: 50,
    });
  }
}
