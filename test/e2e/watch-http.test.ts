import { connect, type Socket } from "node:net";
import { expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { complaints, gauge } from "../support/bad-caller.ts";
import { frame } from "../support/bad-frames.ts";
import { createCacheClient } from "../support/cache-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { until } from "../support/until.ts";

const WATCHERS = 20;
const BATCHES = 40;
const BATCH = 500;
/** What the changes would take if they were kept for those who do not read: 400 MiB and more. */
const KEY_BYTES = 1_000;
const MOST_MIB = 256;
/** What the second half of the changes may add to what the first half did: readers that do not read are full by then. */
const MOST_GROWTH_MIB = 48;

it("holds little for callers of the HTTP plane who watch and do not read", async () => {
  await using server = await startHoldfast();
  using client = createCacheClient(server.grpcAddress);
  const set = (at: number) =>
    client.call(CacheService.method.setMany, {
      namespace: "watched",
      items: Array.from({ length: BATCH }, (_, i) => ({
        key: `${at * BATCH + i} `.padEnd(KEY_BYTES, "k"),
        value: { kind: { case: "text" as const, value: "x" } },
      })),
    });
  // What the entries themselves take is there before, and stays the same.
  for (let at = 0; at < BATCHES; at++) await set(at);

  const sockets = Array.from({ length: WATCHERS }, () => watch(Number(new URL(server.httpUrl).port)));
  await until(async () => (await gauge(server.httpUrl, "holdfast_cache_watchers")) === WATCHERS, { what: "watchers" });
  const before = residentMiB(server.pid);
  const held: number[] = [];
  for (let at = 0; at < BATCHES; at++) {
    await set(at);
    held.push(residentMiB(server.pid) - before);
  }
  const most = Math.max(...held);
  expect(most).toBeLessThan(MOST_MIB);
  expect(most - Math.max(...held.slice(0, BATCHES / 2))).toBeLessThan(MOST_GROWTH_MIB);

  const texts = sockets.map(read);
  await until(() => texts.every((text) => text().includes('"discontinuity":{"reason":"slow reader"}')), {
    what: "the slow to be told",
  });
  for (const socket of sockets) socket.destroy();
  await until(async () => (await gauge(server.httpUrl, "holdfast_cache_watchers")) === 0, { what: "no watcher" });
  expect(complaints(server.output())).toEqual([]);
});

/** A Watch in Connect's JSON over a connection that is not read. */
function watch(port: number): Socket {
  const body = frame(Buffer.from('{"namespace":"watched"}'));
  const socket = connect(port, "127.0.0.1").pause();
  socket.on("error", () => undefined);
  socket.write(
    `POST /${CacheService.typeName}/Watch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+json\r\ncontent-length: ${body.length}\r\n\r\n`,
  );
  socket.write(body);
  return socket;
}

/** Begins to read; what has come so far. */
function read(socket: Socket): () => string {
  let text = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
  });
  socket.resume();
  return () => text;
}
