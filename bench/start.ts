import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { CacheService } from "../src/gen/holdfast/v1/cache_pb.js";
import { type CacheClient, createCacheClient } from "../test/support/cache-client.ts";
import { scratchDirectory } from "../test/support/scratch.ts";
import { VALUE } from "./messages.ts";
import { benchYaml, residentMiB, type Side, startHoldfast } from "./sides.ts";

/** What a start costs with many durable items in SQL, and what memory is taken at rest and with L1 full. */
export interface StartFigures {
  readonly items: number;
  /** From the start of the process to its first answer, of the published build; the slowest of the starts. */
  readonly startMs: number;
  /** With nothing stored. */
  readonly emptyMB: number;
  /** With the items in SQL and none in memory. */
  readonly restMB: number;
  /** After every item was read: L1 is as full as its default bound lets it. */
  readonly fullMB: number;
}

const NAMESPACE = "durable";
const BATCH = 1_000;
const STARTS = 3;
const root = join(import.meta.dirname, "..");

export async function measureStart(items: number): Promise<StartFigures> {
  const built = spawnSync(process.execPath, ["scripts/build.ts"], { cwd: root, encoding: "utf8" });
  if (built.status !== 0) throw new Error(`the build failed: ${built.stdout}${built.stderr}`);
  const directory = scratchDirectory("bench-items");
  const env = { HOLDFAST_DATA_DIR: directory.path, HOLDFAST_CONFIG: benchYaml };
  const start = () => startHoldfast(env, "dist/main.js");
  try {
    const emptyMB = await during(await start(), async (side, client) => {
      const memory = await settledMB(side);
      await inBatches(items, (keys) =>
        client.call(CacheService.method.setMany, {
          namespace: NAMESPACE,
          items: keys.map((key) => ({ key, value: { kind: { case: "text" as const, value: VALUE } } })),
        }),
      );
      return memory;
    });
    const starts: { ms: number; restMB: number }[] = [];
    for (let i = 0; i < STARTS; i++) {
      const begun = performance.now();
      starts.push(
        await during(await start(), async (side, client) => {
          await client.text(NAMESPACE, "item:0");
          const ms = performance.now() - begun;
          return { ms, restMB: await settledMB(side) };
        }),
      );
    }
    const fullMB = await during(await start(), async (side, client) => {
      await inBatches(items, (keys) => client.call(CacheService.method.getMany, { namespace: NAMESPACE, keys }));
      return settledMB(side);
    });
    const startMs = Math.max(...starts.map(({ ms }) => ms));
    const restMB = Math.max(...starts.map((one) => one.restMB));
    return { items, startMs, emptyMB, restMB, fullMB };
  } finally {
    directory.remove();
  }
}

async function during<T>(side: Side, work: (side: Side, client: CacheClient) => Promise<T>): Promise<T> {
  await using running = side;
  using client = createCacheClient(`127.0.0.1:${running.port}`, { deadlineMs: 60_000 });
  return await work(running, client);
}

async function inBatches(items: number, send: (keys: string[]) => Promise<unknown>): Promise<void> {
  for (let at = 0; at < items; at += BATCH) {
    await send(Array.from({ length: Math.min(BATCH, items - at) }, (_, i) => `item:${at + i}`));
  }
}

/** Longer than an instance that nobody calls keeps what it does not need. */
const QUIET_MS = 5_000;
const STEP_MS = 250;
const MB_PER_MIB = 1.048576;

/** Once it has stopped moving: a collector that is still at work would make it look larger than it stays. */
async function settledMB(side: Side): Promise<number> {
  let least = residentMiB(side.pid);
  for (let quiet = 0; quiet * STEP_MS < QUIET_MS; ) {
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    const now = residentMiB(side.pid);
    quiet = now < least - 0.5 ? 0 : quiet + 1;
    least = Math.min(least, now);
  }
  return residentMiB(side.pid) * MB_PER_MIB;
}
