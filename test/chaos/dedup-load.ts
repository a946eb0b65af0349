import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { DedupOutcome, DedupService } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { createRpcClient, type RpcClient } from "../support/rpc-client.ts";
import type { Event, Span } from "./dedup-checker.ts";

/** The shortest that the contract has. */
export const LEASE_MS = 1_000;
const NAMESPACE = "hammer";
const PAUSE_MS = 20;
const { method } = DedupService;

export interface HammerOptions {
  readonly addresses: readonly string[];
  /** Things that are claimed at the same time, each over and over again. */
  readonly things: number;
  /** Callers who want each of them. */
  readonly racers: number;
}

export interface Hammer {
  /** Begins no more races. */
  end(): void;
  /** Resolves when the races under way are over. */
  report(): Promise<HammerReport>;
}

export interface HammerReport {
  readonly history: readonly Event[];
  /** How often a thing was done and forgotten. */
  readonly races: number;
  /** Duplicates that a copy in Redis answered. */
  readonly copied: number;
  /** Calls that failed, and went again. */
  readonly failures: number;
}

type Id = NonNullable<MessageInitShape<typeof method.claim.input>["id"]>;

/** Has the same thing claimed by many at once, on all instances, until one of them has done it; then has it forgotten, and so on. */
export function startHammer({ addresses, things, racers }: HammerOptions): Hammer {
  const clients = addresses.map((address) => createRpcClient(address, { deadlineMs: 10_000 }));
  const history: Event[] = [];
  const counts = { races: 0, copied: 0, failures: 0 };
  let stopping = false;

  /** On one instance after the other, until one answers. */
  async function persist<T>(
    from: number,
    work: (client: RpcClient) => Promise<T>,
  ): Promise<T & { readonly span: Span }> {
    for (let at = from; ; at++) {
      const client = clients[at % clients.length];
      if (client === undefined) throw new Error("there is no instance");
      const begin = performance.now();
      try {
        return { ...(await work(client)), span: { begin, end: performance.now() } };
      } catch {
        counts.failures++;
        await delay(PAUSE_MS);
      }
    }
  }

  const idOf = (key: string): Id => ({ kind: { case: "key", value: key } });
  const nameless = { namespace: NAMESPACE };
  let calls = 0;

  /** Resolves with the token of who did it. */
  async function race(key: string, from: number): Promise<number> {
    for (;;) {
      const requestId = `call-${++calls}`;
      const since = performance.now();
      const request = { ...nameless, id: idOf(key), leaseTtl: { seconds: 1n }, requestId };
      const { reply, span, degraded, servedBy } = await persist(from, (it) => it.call(method.claim, request));
      if (reply.outcome === DedupOutcome.DUPLICATE) {
        const token = Number(reply.result?.kind.value);
        history.push({ kind: "duplicate", id: key, token, degraded, ...span });
        if (servedBy === "redis") counts.copied++;
        return token;
      }
      if (reply.outcome === DedupOutcome.FIRST) {
        const token = Number(reply.claimToken);
        history.push({ kind: "first", id: key, token, caller: requestId, since, ...span });
        if (await workOn(key, token, from)) return token;
      }
      await delay(PAUSE_MS + Math.random() * 100);
    }
  }

  /** Whether it was done. Some give up, and some are never heard of again. */
  async function workOn(key: string, token: number, from: number): Promise<boolean> {
    await delay(Math.random() * PAUSE_MS);
    const fate = Math.random();
    if (fate < 0.15) return false;
    if (fate < 0.3) return release(key, token, from, false).then(() => false);
    const begin = performance.now();
    const result = { kind: { case: "text" as const, value: String(token) } };
    const request = { ...nameless, id: idOf(key), claimToken: BigInt(token), result };
    // It counts from its first attempt, of which nobody may have heard.
    const { reply, span } = await persist(from, (it) => it.call(method.complete, request));
    const outcome = reply.completed ? "completed" : "refused";
    history.push({ kind: "complete", id: key, token, outcome, begin, end: span.end });
    return reply.completed;
  }

  async function release(key: string, token: number, from: number, forget: boolean): Promise<void> {
    const begin = performance.now();
    const request = { ...nameless, id: idOf(key), claimToken: BigInt(token), forgetCompleted: forget };
    const { reply, span } = await persist(from, (it) => it.call(method.release, request));
    // When an attempt failed it may have removed the claim: then the next finds nothing.
    const outcome = reply.released ? "released" : "unknown";
    history.push({ kind: "release", id: key, token, forget, outcome, begin, end: span.end });
  }

  async function raceAgainAndAgain(key: string): Promise<void> {
    while (!stopping) {
      const tokens = await Promise.all(Array.from({ length: racers }, (_, at) => race(key, at)));
      counts.races++;
      await release(key, Math.max(...tokens), counts.races, true);
    }
  }

  const racing = Promise.all(Array.from({ length: things }, (_, at) => raceAgainAndAgain(`thing-${at}`)));
  return {
    end() {
      stopping = true;
    },
    async report() {
      await racing;
      for (const client of clients) client[Symbol.dispose]();
      return { history, ...counts };
    },
  };
}
