import { join } from "node:path";
import { type Child, startChild } from "../support/child.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";
import type { LockClientOptions } from "./lock-client-process.ts";
import { lastWillOf, monotonicMs, type Said } from "./lock-history.ts";

/** Processes of clients that take the same few locks from each other and write under them. */
export interface Clients extends AsyncDisposable {
  add(): Promise<void>;
  /** One of those that run. */
  pick(victim: number): Child;
  kill(victim: number): Promise<void>;
  said(): Said[];
  /** Until they have been granted some more locks. */
  goOn(what: string, timeoutMs?: number): Promise<void>;
  problems(): string[];
  stop(): Promise<void>;
}

export interface ClientsOptions extends Pick<LockClientOptions, "seed" | "holders" | "writes"> {
  readonly servers: readonly HoldfastProcess[];
}

export const LOCKS = ["jobs/a", "jobs/b", "jobs/c"];
const TTL_MS = 600;
/** A run goes on when so many locks were granted. */
const GRANTS = 12;

interface Client {
  readonly child: Child;
  readonly said: Said[];
  /** How much of its output is in `said`. */
  heard: number;
  diedAtMs?: number;
}

export function startClients({ servers, ...of }: ClientsOptions): Clients {
  const clients: Client[] = [];
  const running = () => clients.filter(({ child }) => child.exited() === undefined);
  const problems: string[] = [];

  /** Everything it has said so far, each line read once. */
  function listen(client: Client): readonly Said[] {
    const output = client.child.output();
    const end = output.lastIndexOf("\n") + 1;
    for (const line of output.slice(client.heard, end).split("\n")) {
      if (line.startsWith("{")) client.said.push(JSON.parse(line) as Said);
    }
    client.heard = end;
    return client.said;
  }

  async function kill(client: Client): Promise<void> {
    client.diedAtMs = monotonicMs();
    await client.child.kill();
  }

  function pick(victim: number): Client {
    const all = running();
    const client = all[victim % all.length];
    if (client === undefined) throw new Error("no client runs");
    return client;
  }

  function grants(): number {
    return clients.reduce((sum, client) => sum + listen(client).filter(({ said }) => said === "granted").length, 0);
  }

  async function stop(): Promise<void> {
    for (const { child } of clients) {
      if (child.exited() !== undefined && child.exited() !== "SIGKILL")
        problems.push(`a client ended: ${child.output().slice(-500)}`);
    }
    await Promise.all(running().map(kill));
  }

  return {
    async add() {
      const options: LockClientOptions = {
        ...{ ...of, name: `client${clients.length}`, seed: of.seed + 100 * clients.length },
        ...{ addresses: servers.map(({ grpcAddress }) => grpcAddress), locks: LOCKS, workers: 8, ttlMs: TTL_MS },
      };
      const path = join(import.meta.dirname, "lock-client-process.ts");
      const args = [path, JSON.stringify(options)];
      const child = await startChild({ command: process.execPath, args, isReady: (line) => line === "ready" });
      clients.push({ child, said: [], heard: 0 });
    },
    async kill(victim) {
      await kill(pick(victim));
    },
    pick: (victim) => pick(victim).child,
    said: () =>
      clients.flatMap((client) => {
        const said = listen(client);
        return client.diedAtMs === undefined ? [...said] : [...said, ...lastWillOf(said, client.diedAtMs)];
      }),
    async goOn(what, timeoutMs) {
      const before = grants();
      const isGranting = () => {
        if (grants() > before + GRANTS) return true;
        const last = clients.map(({ child, said }) => `${child.exited() ?? "runs"}: ${JSON.stringify(said.slice(-2))}`);
        throw new Error(last.join("; "));
      };
      await until(isGranting, { what: `locks to be granted: ${what}`, ...(timeoutMs !== undefined && { timeoutMs }) });
    },
    problems: () => problems,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
