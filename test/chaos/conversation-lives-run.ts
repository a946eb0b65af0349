import type { FaultKind } from "../support/audit-faults.ts";
import { createConversationClient } from "../support/conversation-client.ts";
import { until } from "../support/until.ts";
import { startAuditServers } from "./audit-servers.ts";
import { cutShort, type FaultCounts, sufferAll } from "./conversation-faults.ts";
import { checkLives, type LivesVerdict } from "./conversation-lives-checker.ts";
import type { LivesHistory, Rest } from "./conversation-lives-history.ts";
import { BRIEF, LIVES, type LivesReport, LONG, startLives } from "./conversation-lives-load.ts";
import { presenceOf, toldOf } from "./conversation-lives-words.ts";
import { followAll } from "./conversation-watcher.ts";

export interface LivesChaosOptions {
  readonly seed: number;
  readonly durationMs: number;
  readonly kinds?: readonly FaultKind[];
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  readonly log?: (line: string) => void;
}

export interface LivesChaosReport {
  readonly verdict: LivesVerdict;
  readonly history: LivesHistory;
  readonly load: LivesReport;
  readonly faults: FaultCounts;
  readonly watchesOpened: number;
  readonly problems: readonly string[];
}

const SETTINGS = {
  REDIS_COMMAND_TIMEOUT: "1s",
  DATABASE_CONNECT_TIMEOUT: "500ms",
  CONVERSATION_HISTORY: "20",
  CONVERSATION_SWEEP_INTERVAL: "1s",
};
const POSTGRES_AWAY: readonly FaultKind[] = ["Postgres stopped", "Postgres killed", "Postgres frozen"];

/** Conversations come and go on two instances, while Postgres is taken away and instances are killed; then the account. */
export async function runLivesChaos(options: LivesChaosOptions): Promise<LivesChaosReport> {
  const { seed, durationMs, kinds = POSTGRES_AWAY, root, log = () => undefined } = options;
  await using parts = new AsyncDisposableStack();
  const servers = parts.use(await startAuditServers({ ...(root !== undefined && { root }), env: SETTINGS, log }));
  const addresses = servers.instances.map(({ grpcAddress }) => grpcAddress);
  const watchers = await Promise.all(
    addresses.map(async (address) => parts.use(await followAll(address, LIVES, toldOf))),
  );
  const load = parts.use(startLives({ addresses, writers: 12, readersPerInstance: 2, seed }));
  const { faults, healthy } = await sufferAll(servers, load, { seed, durationMs, kinds, log });
  const report = await load.stop();
  const problems = [...report.surprises];
  const note = (error: unknown) => void problems.push(String(error));
  const over = addresses.map((address) => allOver(address).catch(note));
  await Promise.all(over);
  const forks = report.deeds
    .filter(({ act, answer }) => act === "fork" && answer)
    .map(({ conversation }) => conversation);
  const all = [...LONG, ...BRIEF, ...forks];
  const read = addresses.map((address) => readRests(address, all).catch((error: unknown) => void note(error)));
  const rests = (await Promise.all(read)).flatMap((some) => some ?? []);
  const last = Math.max(
    ...rests.map(({ version }) => version),
    ...report.deeds.map(({ answer }) => answer?.version ?? 0),
  );
  for (const watcher of watchers) {
    const isTold = () => watcher.changes.some(({ version }) => version >= last) && hasEnded(watcher.changes);
    await until(isTold, { what: `${watcher.by} to be told of all` }).catch(note);
    problems.push(...watcher.problems);
  }
  const history: LivesHistory = {
    ...{ deeds: report.deeds, sights: report.sights, rests, brief: new Set(BRIEF) },
    told: watchers.map(({ by, changes }) => ({ by, changes })),
    healthy: healthy.map((span) => cutShort(span, report.callers.degraded)),
  };
  const watchesOpened = watchers.reduce((sum, { opened }) => sum + opened, 0);
  return { verdict: checkLives(history), history, load: report, faults, watchesOpened, problems };
}

/** Those that expire have all been told to be over. */
function hasEnded(changes: LivesHistory["told"][number]["changes"]): boolean {
  return BRIEF.every((id) => {
    const last = changes.findLast(({ conversation }) => conversation === id);
    return last === undefined || last.turn === "expired" || last.turn === "deleted";
  });
}

async function allOver(address: string): Promise<void> {
  using client = createConversationClient(address);
  for (const id of BRIEF) {
    const isOver = async () => presenceOf((await client.get(id, { collection: LIVES })).reply.presence) !== "live";
    await until(isOver, { what: `${id} to expire` });
  }
}

async function readRests(address: string, conversations: readonly string[]): Promise<Rest[]> {
  using client = createConversationClient(address);
  const rests: Rest[] = [];
  for (const conversation of conversations) {
    const { reply } = await client.get(conversation, { collection: LIVES, bypassHotCopy: true });
    const messages = await client.messages(conversation, LIVES);
    rests.push({
      ...{ conversation, presence: presenceOf(reply.presence), mark: String(reply.conversation?.state?.mark) },
      version: Number(reply.conversation?.summary?.version ?? 0),
      messages: messages.map(({ id }) => id),
    });
  }
  return rests;
}
