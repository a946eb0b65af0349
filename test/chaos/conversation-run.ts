import { type FaultKind, lanes } from "../support/audit-faults.ts";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { until } from "../support/until.ts";
import { startAuditServers } from "./audit-servers.ts";
import { checkHistory, type Verdict } from "./conversation-checker.ts";
import { cutShort, type FaultCounts, sufferAll } from "./conversation-faults.ts";
import type { Commit, History, Listing } from "./conversation-history.ts";
import { COLLECTION, commitOf, type LoadReport, startLoad } from "./conversation-load.ts";
import { followAll } from "./conversation-watcher.ts";

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
  readonly faults: FaultCounts;
  readonly watchesOpened: number;
  readonly problems: readonly string[];
}

const CONVERSATIONS = ["a", "b", "c", "d"];
const WRITERS = 32;

/** Writers, readers and watchers on two instances, while Redis and the instances fail at random; then the account. */
export async function runConversationChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { seed, durationMs, redisFaults = lanes.redis, log = () => undefined } = options;
  await using parts = new AsyncDisposableStack();
  const servers = parts.use(
    await startAuditServers({ ...(options.root && { root: options.root }), env: { REDIS_COMMAND_TIMEOUT: "1s" }, log }),
  );
  const addresses = servers.instances.map(({ grpcAddress }) => grpcAddress);
  const watchers = await Promise.all(
    addresses.map(async (address) => parts.use(await followAll(address, COLLECTION, commitOf))),
  );
  const load = parts.use(
    await startLoad({ addresses, conversations: CONVERSATIONS, writers: WRITERS, readersPerInstance: 3, seed }),
  );
  const { faults, healthy } = await sufferAll(servers, load, { kinds: redisFaults, seed, durationMs, log });
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
