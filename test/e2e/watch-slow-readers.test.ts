import { expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { complaints, gauge } from "../support/bad-caller.ts";
import { connectWatchers, openWatcher, type Watcher } from "../support/bad-watchers.ts";
import { createCacheClient } from "../support/cache-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { atScale } from "../support/scale.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const SLOW = atScale(9_900, 3_300);
const READING = 100;
const PER_CONNECTION = 1_100;
const BATCHES = 40;
const BATCH = 500;
/** About 30 changes: what lies in the network, or in the client, is no memory of the server's. */
const WINDOW_BYTES = 2_048;

/** What the server may hold at all, and what the second half of the changes may add to what the first half did. */
const MOST_MIB = 1_000;
const MOST_GROWTH_MIB = 64;

interface Seen {
  readonly watcher: Watcher;
  readonly keys: string[];
  discontinuities: string[];
  heartbeats: number;
  hotVersion: bigint;
  faults: string[];
}

function follow(watcher: Watcher): Seen {
  const seen: Seen = { watcher, keys: [], discontinuities: [], heartbeats: 0, hotVersion: 0n, faults: [] };
  watcher.onEvent = (event) => {
    if (event.case === "heartbeat") seen.heartbeats++;
    if (event.case === "discontinuity") seen.discontinuities.push(event.value.reason);
    if (event.case !== "change") return;
    const { key, version } = event.value;
    seen.keys.push(key);
    if (key !== "p0/hot") return;
    if (version <= seen.hotVersion) seen.faults.push(`version ${version} came after ${seen.hotVersion}`);
    seen.hotVersion = version;
  };
  watcher.read();
  return seen;
}

it(`holds ${SLOW + READING} watches in bounded memory while ${SLOW} of them are not read, and misleads none`, {
  timeout: 240_000,
}, async () => {
  await using server = await startHoldfast();
  const port = Number(server.grpcAddress.split(":")[1]);
  using client = createCacheClient(server.grpcAddress, { deadlineMs: 60_000 });
  const atRest = residentMiB(server.pid);

  // One connection is not read at all; of the others, no stream is.
  await using proxy = await startTcpProxy(port);
  const slow: Watcher[] = [];
  for (let at = 0; at < SLOW; at += PER_CONNECTION) {
    const session = await connectWatchers(at === 0 ? proxy.port : port, WINDOW_BYTES);
    slow.push(...(await Promise.all(fill(PER_CONNECTION, () => openWatcher(session, { namespace: "watched" })))));
  }
  proxy.freeze();
  const reading: Seen[] = [];
  for (let at = 0; at < READING; at += READING / 2) {
    const session = await connectWatchers(port);
    const open = (i: number) => openWatcher(session, { namespace: "watched", prefix: prefixOf(i) });
    reading.push(...(await Promise.all(fill(READING / 2, open))).map(follow));
  }
  const quiet = await connectWatchers(port);
  const idle = (
    await Promise.all(fill(5, () => openWatcher(quiet, { namespace: "quiet", heartbeatInterval: { seconds: 1n } })))
  ).map(follow);
  expect(await gauge(server.httpUrl, "holdfast_cache_watchers")).toBe(SLOW + READING + idle.length);
  const opened = residentMiB(server.pid);

  const written: string[] = [];
  const held: number[] = [];
  for (let batch = 0; batch < BATCHES; batch++) {
    const keys = fill(BATCH, (i) => (i === 0 ? "p0/hot" : `p${i % 10}/${batch}-${i}`));
    written.push(...keys);
    await client.call(CacheService.method.setMany, {
      namespace: "watched",
      items: keys.map((key) => ({ key, value: { kind: { case: "text" as const, value: "x" } } })),
    });
    await until(() => reading.every(({ keys: seen }, i) => seen.length === expected(i, written.length)), {
      what: `batch ${batch} to be seen by all who read`,
      timeoutMs: 60_000,
    });
    held.push(residentMiB(server.pid));
  }

  // Those who read saw everything, each once and in one order.
  const [first] = reading;
  expect([...(first?.keys ?? [])].sort()).toEqual([...written].sort());
  for (const [i, seen] of reading.entries()) {
    expect(seen.keys).toEqual(first?.keys.filter((key) => key.startsWith(prefixOf(i))));
    expect(seen.discontinuities).toEqual([]);
  }
  const half = Math.max(...held.slice(0, BATCHES / 2));
  const most = Math.max(...held);
  const account = `at rest ${atRest}, opened ${opened}, first half ${half}, at most ${most} MiB`;
  expect(most, account).toBeLessThan(MOST_MIB);
  expect(most - half, account).toBeLessThan(MOST_GROWTH_MIB);

  await until(() => idle.every(({ heartbeats }) => heartbeats >= 2), { what: "heartbeats" });

  // Those who begin to read now are told that they missed something, and then hear what is new.
  proxy.thaw();
  const late = slow.slice(0, -READING).map(follow);
  await until(() => late.every(({ discontinuities }) => discontinuities.length > 0), {
    what: "the slow to be told",
    timeoutMs: 60_000,
  });
  expect(new Set(late.flatMap(({ discontinuities }) => discontinuities))).toEqual(new Set(["slow reader"]));
  await client.put("watched", "p0/last", "x");
  await until(() => late.every(({ keys }) => keys.at(-1) === "p0/last"), {
    what: "the slow to have caught up",
    timeoutMs: 60_000,
  });

  // All streams end as the contract says; the hundred that are still not read hold up nobody.
  const stopped = server.stop();
  const all = [...late, ...reading, ...idle];
  await until(() => all.every(({ watcher }) => watcher.end !== undefined), { what: "all to end", timeoutMs: 60_000 });
  for (const { watcher, faults } of all) {
    expect(watcher.fault).toBeUndefined();
    expect(faults).toEqual([]);
    expect(watcher.end).toEqual({ status: 14, reason: "SERVER_DRAINING", retryable: true });
  }
  await stopped;
  expect(server.exited()).toBe("exit code 0");
  expect(complaints(server.output())).toEqual([]);
});

/** One in five of those who read watches all keys. */
function prefixOf(i: number): string {
  return i % 5 === 0 ? "" : `p${i % 10}/`;
}

function expected(i: number, written: number): number {
  return prefixOf(i) === "" ? written : written / 10;
}

function fill<T>(count: number, one: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => one(i));
}
