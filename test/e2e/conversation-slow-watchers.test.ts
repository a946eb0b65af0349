import type { ClientHttp2Stream } from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import {
  ConversationStateService,
  ConversationStateServiceWatchRequestSchema,
  ConversationStateServiceWatchResponseSchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { connectWatchers, openWatch, readMessages } from "../support/bad-watchers.ts";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { until } from "../support/until.ts";

const SLOW = 2_000;
const PER_CONNECTION = 1_000;
/** About ten changes: what lies in the network, or in the client, is no memory of the server's. */
const WINDOW_BYTES = 2_048;
const PORTIONS = 10;
/** All of them are more than the server keeps in memory for its watchers. */
const PORTION = 600;
/** What the second half of the changes may add to what the first half did. */
const MOST_GROWTH_MIB = 64;

async function openSlow(port: number): Promise<readonly ClientHttp2Stream[]> {
  const request = create(ConversationStateServiceWatchRequestSchema, { collection: "watched", includeState: true });
  const bytes = toBinary(ConversationStateServiceWatchRequestSchema, request);
  const streams: ClientHttp2Stream[] = [];
  while (streams.length < SLOW) {
    const session = await connectWatchers(port, WINDOW_BYTES);
    for (let more = 0; more < PER_CONNECTION; more++) {
      const { stream, opened } = openWatch(session, ConversationStateService.typeName, bytes);
      await opened;
      streams.push(stream);
    }
  }
  return streams;
}

/** Resolves with the versions, in no order: they were written side by side. */
async function writePortion(client: ConversationClient): Promise<readonly bigint[]> {
  const versions: bigint[] = [];
  for (let at = 0; at < PORTION; at += 100) {
    const ids = Array.from({ length: 100 }, (_, more) => `c${at + more}`);
    const saved = ids.map((id) => client.save(id, { body: "x".repeat(500) }, { collection: "watched" }));
    for (const { version } of await Promise.all(saved)) versions.push(version);
  }
  return versions;
}

it("feeds 2,000 watchers who do not read in bounded memory, and leaves out nothing when they do", {
  timeout: 240_000,
}, async () => {
  await using server = await startHoldfast();
  using client = createConversationClient(server.grpcAddress, { deadlineMs: 60_000 });
  const slow = await openSlow(Number(server.grpcAddress.split(":")[1]));
  const written: bigint[] = [];
  const held: number[] = [];
  for (let portion = 0; portion < PORTIONS; portion++) {
    written.push(...(await writePortion(client)));
    held.push(residentMiB(server.pid));
  }
  const half = Math.max(...held.slice(0, PORTIONS / 2));
  expect(Math.max(...held) - half, `MiB: ${held.join(", ")}`).toBeLessThan(MOST_GROWTH_MIB);

  const told = slow.slice(-3).map((stream) => {
    const versions: bigint[] = [];
    readMessages(stream, (message) => {
      const { event } = fromBinary(ConversationStateServiceWatchResponseSchema, message);
      if (event.case === "change") versions.push(event.value.version);
      else expect(event.case).not.toBe("compacted");
    });
    return versions;
  });
  await until(() => told.every(({ length }) => length >= written.length), {
    what: "the slow ones",
    timeoutMs: 120_000,
  });
  const sorted = (versions: readonly bigint[]) => [...versions].sort((a, b) => (a < b ? -1 : 1));
  for (const versions of told) expect(sorted(versions)).toEqual(sorted(written));
});
