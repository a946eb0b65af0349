import { setTimeout as delay } from "node:timers/promises";
import { type CacheEntry, CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { type Answer, type CacheClient, CallFailed, createCacheClient } from "./cache-client.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";
import { createRegisterHistory, type RegisterAccount, type RegisterState } from "./load-history.ts";

/** One client of one instance: writers and readers of registers (see load-history.ts), and a caller of everything else. */
export interface RegisterJob {
  readonly address: string;
  readonly namespace: string;
  readonly prefix: string;
  readonly keys: number;
  readonly writers: number;
  readonly readers: number;
  /** Whether to call the other RPCs as well, on keys of its own. */
  readonly medley: boolean;
  readonly seed: number;
  /** Between two calls of one caller. */
  readonly pauseMs: number;
}

export interface RegisterReport {
  readonly account: RegisterAccount;
  readonly calls: number;
  readonly degraded: number;
  readonly failed: number;
  readonly failures: readonly string[];
  readonly slowestMs: number;
  readonly slowest: string;
  /** The last number that was tried, acknowledged or not. */
  readonly tried: ReadonlyMap<string, number>;
}

export function isRegisterReport(report: unknown): report is RegisterReport {
  return typeof report === "object" && report !== null && "account" in report && "tried" in report;
}

const { method } = CacheService;
const MOST_FAILURES = 20;
/** The parent is told once this many calls were answered: what happens from then on happens under load. */
const WARM_CALLS = 50;

async function work(job: RegisterJob, context: LoadContext): Promise<RegisterReport> {
  using client = createCacheClient(job.address);
  const history = createRegisterHistory();
  const tried = new Map<string, number>();
  const failures: string[] = [];
  let calls = 0;
  let degraded = 0;
  let failed = 0;
  let slowestMs = 0;
  let slowest = "";

  async function counted<T>(what: string, call: () => Promise<Answer<T>>): Promise<Answer<T> | undefined> {
    calls++;
    if (calls === WARM_CALLS) context.tell("under load");
    try {
      const answer = await call();
      if (answer.degraded) degraded++;
      if (answer.ms > slowestMs) [slowestMs, slowest] = [answer.ms, what];
      return answer;
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      failed++;
      if (error.ms > slowestMs) [slowestMs, slowest] = [error.ms, what];
      if (failures.length < MOST_FAILURES) failures.push(error.message);
      // A server that is away must not be called as fast as it can refuse.
      await delay(20);
      return undefined;
    } finally {
      await delay(job.pauseMs);
    }
  }

  async function write(writer: number): Promise<void> {
    const random = createRandom(job.seed * 31 + writer);
    const own = keysOf(job).filter((_, i) => i % job.writers === writer);
    while (!context.stopping) {
      const key = own[random(own.length)];
      if (key === undefined) return;
      const number = (tried.get(key) ?? 0) + 1;
      tried.set(key, number);
      const answer = await counted("Set", () => client.put(job.namespace, key, String(number)));
      if (answer !== undefined) history.acknowledged(key, { number, version: answer.reply.version });
    }
  }

  async function read(reader: number): Promise<void> {
    const random = createRandom(job.seed * 37 + reader);
    const keys = keysOf(job);
    while (!context.stopping) {
      const key = keys[random(keys.length)];
      if (key === undefined) return;
      const floor = history.floor(key);
      const answer = await counted("Get", () => client.call(method.get, { namespace: job.namespace, key }));
      if (answer === undefined) continue;
      history.saw(job.address, key, stateOf(answer.reply.entry), floor);
    }
  }

  async function everythingElse(): Promise<void> {
    const steps = medley(client, job);
    for (let turn = 0; !context.stopping; turn++) {
      const step = steps[turn % steps.length];
      if (step !== undefined) await counted(step.what, step.call);
    }
  }

  const callers = [
    ...Array.from({ length: job.writers }, (_, writer) => write(writer)),
    ...Array.from({ length: job.readers }, (_, reader) => read(reader)),
    ...(job.medley ? [everythingElse()] : []),
  ];
  await Promise.all(callers);
  const { account } = history;
  return { account, calls, degraded, failed, failures, slowestMs, slowest, tried };
}

/** What an entry says of its register; undefined when there is none. */
export function stateOf(entry: CacheEntry | undefined): RegisterState | undefined {
  const kind = entry?.value?.kind;
  return entry && kind?.case === "text" ? { number: Number(kind.value), version: entry.version } : undefined;
}

export function keysOf({ prefix, keys }: Pick<RegisterJob, "prefix" | "keys">): string[] {
  return Array.from({ length: keys }, (_, i) => `${prefix}${i}`);
}

interface Step {
  readonly what: string;
  readonly call: () => Promise<Answer<unknown>>;
}

/** Every unary RPC but the two that the registers use, in a round. */
function medley(client: CacheClient, { namespace: registers, prefix }: RegisterJob): Step[] {
  // Invalidations make an instance forget what was under way in the namespace: the registers' own must not be touched by them.
  const namespace = `${registers}-medley`;
  const key = `medley-${prefix}`;
  const keys = [`${key}-1`, `${key}-2`, `${key}-3`];
  const value = { kind: { case: "text", value: "medley" } } as const;
  const tags = [`tag-${prefix}`];
  return [
    {
      what: "SetMany",
      call: () => client.call(method.setMany, { namespace, items: keys.map((k) => ({ key: k, value, tags })) }),
    },
    { what: "GetMany", call: () => client.call(method.getMany, { namespace, keys }) },
    { what: "Touch", call: () => client.call(method.touch, { namespace, key: `${key}-1` }) },
    { what: "Increment", call: () => client.call(method.increment, { namespace, key: `${key}-n` }) },
    { what: "Exists", call: () => client.call(method.exists, { namespace, key: `${key}-2` }) },
    { what: "CompareAndSet", call: () => client.call(method.compareAndSet, { namespace, key: `${key}-c`, value }) },
    { what: "Delete", call: () => client.call(method.delete, { namespace, key: `${key}-c` }) },
    { what: "InvalidateTags", call: () => client.call(method.invalidateTags, { namespace, tags }) },
    { what: "Set if_absent", call: () => client.put(namespace, `${key}-a`, "a", { ifAbsent: true }) },
    { what: "ListKeys", call: () => client.call(method.listKeys, { namespace, prefix: key }) },
    { what: "Get with lease", call: () => leased(client, namespace, `${key}-l`) },
    { what: "DeleteMany", call: () => client.call(method.deleteMany, { namespace, keys: [`${key}-a`, `${key}-l`] }) },
    { what: "GetStats", call: () => client.call(method.getStats, { namespace }) },
  ];
}

/** Asks for a lease and answers it, if given; the time told is that of the longer of the two calls. */
async function leased(client: CacheClient, namespace: string, key: string): Promise<Answer<unknown>> {
  const asked = await client.call(method.get, { namespace, key, leaseTtl: { seconds: 1n }, waitTimeout: {} });
  const leaseToken = asked.reply.lease?.token;
  if (leaseToken === undefined) return asked;
  const answered = await client.put(namespace, key, "filled", { leaseToken });
  return { ...answered, ms: Math.max(asked.ms, answered.ms) };
}

if (import.meta.main) await runLoad((job, context) => work(job as RegisterJob, context));
