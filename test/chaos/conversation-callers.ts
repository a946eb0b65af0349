import { setTimeout as delay } from "node:timers/promises";
import { CallFailed, type ConversationClient, createConversationClient } from "../support/conversation-client.ts";

/** What a client is told while servers come and go. */
const PASSING: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"]);
export const RETRY_MS = 50;

interface Answered {
  readonly degraded: boolean;
}

/** Clients of some instances, and an account of how their calls went. */
export interface Callers extends Disposable {
  /** New clients, one an instance. */
  open(deadlineMs?: number): readonly ConversationClient[];
  /** Undefined: it failed as calls do while servers come and go. */
  attempt<T extends Answered>(call: () => Promise<T>): Promise<T | undefined>;
  /** Asks one instance after the other until there is an answer. */
  insist<T extends Answered>(
    clients: readonly ConversationClient[],
    first: number,
    call: (client: ConversationClient) => Promise<T>,
  ): Promise<T>;
  /** Resolves when all calls have ended that are under way now. */
  underWay(): Promise<void>;
  /** When calls began whose answers were marked as degraded. */
  readonly degraded: readonly number[];
  readonly retries: number;
  /** Failures that the server told of, and not the transport. */
  readonly refusals: readonly CallFailed[];
}

export function createCallers(addresses: readonly string[]): Callers {
  const parts = new DisposableStack();
  const degraded: number[] = [];
  const refusals: CallFailed[] = [];
  const calls = new Set<Promise<unknown>>();
  let retries = 0;

  async function attempt<T extends Answered>(call: () => Promise<T>): Promise<T | undefined> {
    const calledAt = performance.now();
    const answering = call();
    calls.add(answering);
    try {
      const answer = await answering;
      if (answer.degraded) degraded.push(calledAt);
      return answer;
    } catch (error) {
      if (!(error instanceof CallFailed) || !PASSING.has(error.code)) throw error;
      if (error.reason !== "") refusals.push(error);
      return undefined;
    } finally {
      calls.delete(answering);
    }
  }

  return {
    open: (deadlineMs = 8_000) =>
      addresses.map((address) => parts.use(createConversationClient(address, { deadlineMs }))),
    attempt,
    async insist(clients, first, call) {
      for (let n = first; ; n++) {
        const client = clients[n % clients.length];
        if (client === undefined) throw new Error("there is no instance");
        const answer = await attempt(() => call(client));
        if (answer !== undefined) return answer;
        retries++;
        await delay(RETRY_MS);
      }
    },
    async underWay() {
      await Promise.allSettled([...calls]);
    },
    degraded,
    refusals,
    get retries() {
      return retries;
    },
    [Symbol.dispose]: () => parts.dispose(),
  };
}
