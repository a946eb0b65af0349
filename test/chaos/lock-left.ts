import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { textOf } from "../support/cache-client.ts";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";
import {
  grantsOf,
  type LeftMessages,
  type LockHistory,
  monotonicMs,
  type Said,
  type SeenRead,
  type SeenWrite,
  tokenOf,
  type WriteKind,
} from "./lock-history.ts";
import { nameIn } from "./lock-writes.ts";

/** What clients that are gone have seen, and what there is in the end of all that they wrote under locks. */
export async function historyOf(
  said: readonly Said[],
  servers: readonly HoldfastProcess[],
  faults: Pick<LockHistory, "lossesMs" | "emptiedMs" | "dark" | "isHandedOver">,
): Promise<LockHistory> {
  const writes = said.filter((one) => one.said === "wrote");
  const { left, reads } = await readLeft(servers, writes);
  const readBefore = said.filter((one) => one.said === "read");
  return { grants: grantsOf(said), writes, reads: [...readBefore, ...reads], left, ...faults };
}

interface Left {
  readonly left: readonly LeftMessages[];
  readonly reads: readonly SeenRead[];
}

/** As each server has it. */
async function readLeft(servers: readonly HoldfastProcess[], writes: readonly SeenWrite[]): Promise<Left> {
  const left: LeftMessages[] = [];
  const reads: SeenRead[] = [];
  for (const { grpcAddress } of servers) {
    using client = createConversationClient(grpcAddress);
    for (const lock of new Set(writes.map((write) => write.lock))) {
      left.push({ lock, values: (await client.messages(lock)).map(({ id }) => id) });
    }
    for (const [key, under] of Map.groupBy(writes, (write) => write.key)) {
      const [first] = under;
      if (first === undefined || first.kind === "message") continue;
      const { lock, kind } = first;
      const began = monotonicMs();
      const value = await find(client, kind, nameIn(kind, key), under);
      if (value !== undefined) reads.push({ lock, key, value, token: tokenOf(value), began, ended: monotonicMs() });
    }
  }
  return { left, reads };
}

interface Found {
  readonly value: unknown;
  readonly version: bigint | undefined;
  readonly degraded: boolean;
}

async function find(
  client: ConversationClient,
  kind: Exclude<WriteKind, "message">,
  name: string,
  writes: readonly SeenWrite[],
): Promise<string | undefined> {
  const look = async (): Promise<Found> => {
    if (kind === "state") {
      const { reply, degraded } = await client.get(name);
      return { value: reply.conversation?.state?.value, version: reply.conversation?.summary?.version, degraded };
    }
    const wanted = { namespace: kind, key: name, bypassL1: true };
    const { reply, degraded } = await client.call(CacheService.method.get, wanted);
    return { value: textOf(reply), version: reply.entry?.version, degraded };
  };
  // SQL is what counts: its copies in Redis are brought up to date by and by. What is only in Redis may be lost.
  const newest = kind === "cached" ? 0 : Math.max(0, ...writes.map(({ version = 0 }) => version));
  const found = await until(
    async () => {
      const it = await look();
      return !it.degraded && Number(it.version ?? 0n) >= newest ? it : undefined;
    },
    { what: `the ${kind} ${name} to be found as it was written last` },
  );
  return typeof found?.value === "string" ? found.value : undefined;
}
