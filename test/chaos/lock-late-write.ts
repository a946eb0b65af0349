import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { createLockClient, type LockClient, ms } from "../support/lock-client.ts";
import type { TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import type { Said } from "./lock-history.ts";
import { createWriter, type WriteChoice } from "./lock-writes.ts";

export interface LateWriteScene {
  readonly far: HoldfastProcess;
  readonly near: HoldfastProcess;
  /** By which the one that is far reaches Redis. */
  readonly ways: readonly TcpProxy[];
  readonly say: (said: Said) => void;
}

const LOCK = "jobs/late";
const TTL_MS = 200;
const TARGET = { kind: "cached", name: LOCK } as const;

/**
 * A write that SQL has let pass is held up on its way to Redis until the next holder of its lock has written. Clients that are frozen
 * by chance hardly ever meet this moment.
 */
export async function writeLate({ far, near, ways, say }: LateWriteScene): Promise<void> {
  using before = createLockClient(far.grpcAddress);
  using after = createLockClient(near.grpcAddress);
  const older = await take(before, say);
  await older({ ...TARGET, isBlind: true });
  for (const way of ways) way.freeze();
  const late = older({ ...TARGET, isBlind: true });
  const newer = await take(after, say);
  await newer({ ...TARGET, isBlind: true });
  for (const way of ways) way.thaw();
  await late;
  // Whatever came last is read before it is replaced.
  await newer({ ...TARGET, isBlind: false });
}

async function take(client: LockClient, say: (said: Said) => void): Promise<(choice: WriteChoice) => Promise<void>> {
  const token = Number(await until(() => client.take(LOCK, { ttl: ms(TTL_MS) }), { what: `${LOCK} to be free` }));
  return createWriter({ client, readable: [TARGET.kind], say }, { lock: LOCK, token, holder: `late ${token}` });
}
