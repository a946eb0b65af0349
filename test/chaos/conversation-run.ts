import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type FaultKind, lanes, type PlannedFault, planFaults } from "../support/audit-faults.ts";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { createRandom } from "../support/load-child.ts";
import { until } from "../support/until.ts";
import { type AuditServers, startAuditServers } from "./audit-servers.ts";
import {
  type Commit,
  checkHistory,
  type History,
  type Listing,
  type Span,
  type Verdict,
} from "./conversation-checker.ts";
import { COLLECTION, commitOf, type Load, type LoadReport, startLoad } from "./conversation-load.ts";
import { metric } from "./outage.ts";

export interface ChaosOptions {
  readonly seed: number;
  /** How long faults go on. They go on longer until each kind has come once. */
  readonly durationMs: number;
  readonly redisFaults?: readonly FaultKind[];
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  readonly log?: (line: string) => void;
}

export interface ChaosReport {
  readonly verdict: Verdict;
  readonly history: History;
  readonly load: LoadReport;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  readonly watchesOpened: number;
  readonly problems: readonly string[];
}

const CONVERSATIONS = ["a", "b", "c", "d"];
const WRITERS = 32;
const TIMES = { calmMs: [200, 1_200], holdMs: [200, 1_800] } as const;
const { method } = ConversationStateService;

/** Writers, readers and watchers on two instances, while Redis and the instances fail at random; then the account. */
export async function runConversationChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { seed, log = () => undefined } = options;
  await using parts = new AsyncDisposableStack();
  const servers = parts.use(
    await startAuditServers({ ...(options.root && { root: options.root }), env: { REDIS_COMMAND_TIMEOUT: "1s" }, log }),
  );
  const addresses = servers.instances.map(({ grpcAddress }) => grpcAddress);
  const watchers = await Promise.all(addresses.map(async (address) => parts.use(await followAll(address))));
  const load = parts.use(
    await startLoad({ addresses, conversations: CONVERSATIONS, writers: WRITERS, readersPerInstance: 3, seed }),
  );
  const { faults, healthy } = await sufferAll(servers, load, options);
  log("the faults are over; waiting until everything is acknowledged");
  const report = await load.stop();
  const commits = await Promise.all(addresses.map(readCommits));
  const listings = (await Promise.all(addresses.map(readListings))).flat();
  const total = commits[0]?.changes.length ?? 0;
  const problems = [...report.surprises];
  for (const watcher of watchers) {
    await until(() => watcher.changes.length >= total, { what: `${watcher.by} to be told of ${total} changes` }).catch(
      (error: unknown) => problems.push(`${String(error)}; it was told of ${watcher.changes.length}`),
    );
    problems.push(...watcher.problems);
  }
  const history: History = {
    ...{ writes: report.writes, reads: report.reads, commits, told: watchers, listings },
    healthy: healthy.map((span) => cutShort(span, report.degraded)),
  };
  const watchesOpened = watchers.reduce((sum, { opened }) => sum + opened, 0);
  return { verdict: checkHistory(history), history, load: report, faults, watchesOpened, problems };
}

/** Up to the first call that was marked as degraded: the server has said by itself that not all was well. */
function cutShort({ from, to }: Span, degraded: readonly number[]): Span {
  const first = degraded.filter((at) => from <= at && at <= to);
  return { from, to: Math.min(to, ...first) };
}

/** Faults of Redis, and during some of them an instance is killed as well. */
async function sufferAll(
  servers: AuditServers,
  load: Load,
  { seed, durationMs, redisFaults = lanes.redis, log = () => undefined }: ChaosOptions,
): Promise<{ faults: Partial<Record<FaultKind, number>>; healthy: Span[] }> {
  const faults: Partial<Record<FaultKind, number>> = {};
  const healthy: Span[] = [];
  const random = createRandom(seed);
  const ofRedis = planFaults(redisFaults, TIMES, seed + 1);
  const ofInstances = planFaults(["an instance killed"], TIMES, seed + 2);
  const kinds = [...redisFaults, "an instance killed"] as const;
  const start = performance.now();
  const suffer = async (fault: PlannedFault) => {
    log(`${((performance.now() - start) / 1000).toFixed(1)} s: ${fault.kind}, ${fault.holdMs} ms`);
    await servers.suffer(fault);
    faults[fault.kind] = (faults[fault.kind] ?? 0) + 1;
  };
  await wellAgain(servers, load);
  for (;;) {
    const from = performance.now();
    const isOver = from - start > durationMs && kinds.every((kind) => faults[kind]);
    const isBoth = random(2) === 0;
    const redis = ofRedis.next().value;
    await delay(redis.afterMs);
    healthy.push({ from, to: performance.now() });
    if (isOver) return { faults, healthy };
    const instance = ofInstances.next().value;
    const laterMs = random(redis.holdMs);
    await Promise.all([suffer(redis), isBoth && delay(laterMs).then(() => suffer(instance))]);
    await wellAgain(servers, load);
  }
}

/** Until both instances believe hot copies again, and nothing that was written without Redis is left to be healed. */
async function wellAgain({ instances, env }: AuditServers, load: Load): Promise<void> {
  const sql = new pg.Client({ connectionString: env.DATABASE_URL });
  await sql.connect();
  try {
    await Promise.all(instances.map(believes));
    // What began before may still be committed without a cover.
    await load.underWay();
    const healed = async () =>
      (await sql.query("SELECT 1 FROM conversation WHERE unhealed <> 0 LIMIT 1")).rowCount === 0;
    await until(healed, { what: "everything to be healed" });
    await Promise.all(instances.map(believes));
  } finally {
    await sql.end();
  }
}

async function believes({ grpcAddress, httpUrl }: AuditServers["instances"][number]): Promise<void> {
  using client = createConversationClient(grpcAddress);
  const isHot = async () => {
    if ((await metric(httpUrl, 'holdfast_redis_breaker_state{state="closed"}')) !== 1) return false;
    const written = await client.call(method.save, { id: "probe", state: {} });
    if (written.degraded) return false;
    const { servedBy, degraded } = await client.get("probe");
    return servedBy === "redis" && !degraded;
  };
  await until(isHot, { what: `${grpcAddress} to serve hot copies`, timeoutMs: 60_000 });
}

interface Watcher extends Disposable {
  readonly by: string;
  readonly changes: readonly Commit[];
  readonly problems: readonly string[];
  readonly opened: number;
}

/** Watches the collection on one instance, and goes on where it was after each break. */
async function followAll(address: string): Promise<Watcher> {
  const client = createConversationClient(address);
  const by = `watch of ${address}`;
  const changes: Commit[] = [];
  const problems: string[] = [];
  const open = Promise.withResolvers<void>();
  let opened = 0;
  let token = "";
  let stream: Disposable | undefined;
  let closed = false;

  async function follow(): Promise<void> {
    while (!closed) {
      const start = token === "" ? ({ case: undefined } as const) : ({ case: "resumeToken", value: token } as const);
      const request = { collection: COLLECTION, includeMessages: true, start };
      const following = client.follow(method.watch, request, ({ event, resumeToken }) => {
        token = resumeToken;
        if (event.case === "opened") {
          opened++;
          open.resolve();
        } else if (event.case === "change") changes.push(commitOf(event.value));
        else if (event.case === "compacted") problems.push(`${by}: compacted, ${event.value.reason}`);
      });
      stream = following;
      const why = await following.ended;
      if (!closed && why?.code !== "UNAVAILABLE") problems.push(`${by}: ended with ${why?.message ?? "OK"}`);
      await delay(20);
    }
  }

  void follow();
  await open.promise;
  return {
    ...{ by, changes, problems },
    get opened() {
      return opened;
    },
    [Symbol.dispose]: () => {
      closed = true;
      stream?.[Symbol.dispose]();
      client[Symbol.dispose]();
    },
  };
}

/** All changes of each conversation, from its creation to what it is now. */
async function readCommits(address: string): Promise<{ by: string; changes: Commit[] }> {
  using client = createConversationClient(address);
  const all = await Promise.all(CONVERSATIONS.map((id) => commitsOf(client, id)));
  return { by: `history from ${address}`, changes: all.flat() };
}

async function commitsOf(client: ConversationClient, id: string): Promise<Commit[]> {
  const { reply } = await client.get(id, { collection: COLLECTION, bypassHotCopy: true });
  const last = Number(reply.conversation?.summary?.version);
  const start = { case: "afterVersion", value: 0n } as const;
  using watch = await client.watch({ collection: COLLECTION, id, start, includeMessages: true });
  await until(() => Number(watch.changes.at(-1)?.version) >= last, { what: `the change ${last} of ${id}` });
  return watch.changes.map(commitOf);
}

async function readListings(address: string): Promise<Listing[]> {
  using client = createConversationClient(address);
  return await Promise.all(
    CONVERSATIONS.map(async (conversation) => ({
      ...{ by: `${conversation} on ${address}`, conversation },
      messages: (await client.messages(conversation, COLLECTION)).map(({ id, position }) => ({
        id,
        position: Number(position),
      })),
    })),
  );
}
