import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createCleanupRpc } from "../../src/conversation/upkeep/cleanup-rpc.ts";
import {
  type ConversationStateServiceCleanupResponse,
  ConversationStateServiceCleanupRequestSchema as RequestSchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { CallContext } from "../../src/infra/call.ts";
import { EncodedReply } from "../../src/infra/call.ts";
import { InvalidFieldsError } from "../../src/infra/failure.ts";
import { DAY_MS, DEFAULT_POLICY, done, KINDS, message, remove, save } from "./ledgers.ts";
import { countOf, type OpenUpkeep, openUpkeep } from "./upkeep-parts.ts";

type Request = MessageInitShape<typeof RequestSchema>;

/** Cleans up as a caller does who may use the collections that begin with an "s", "c" or "t". */
async function cleanUp(
  { instances: [{ removal, database }], clock, policies }: OpenUpkeep,
  request: Request = {},
  given: Partial<CallContext> = {},
): Promise<ConversationStateServiceCleanupResponse> {
  const policyFor = (name: string) => (policies.has(name) ? policies.get(name) : DEFAULT_POLICY);
  const { cleanup } = createCleanupRpc({ removal, policyFor, clock, servedBy: database.kind });
  const call: CallContext = {
    ...{ method: "test", deadline: undefined, signal: new AbortController().signal, interruption: undefined },
    caller: { name: "t", hasScope: () => true, mayUse: (collection) => /^[sct]/.test(collection) },
    servedBy: () => {},
    degraded: () => {},
    ...given,
  };
  const reply = await cleanup(create(RequestSchema, request), call);
  if (reply instanceof EncodedReply) throw new Error("a message was expected");
  return reply;
}

const live = (of: OpenUpkeep, where = "presence = 1") => countOf(of.instances[0], `conversation WHERE ${where}`);

/** Five expired ones with two messages each in every collection. */
async function withExpired(open: OpenUpkeep, collections: readonly string[], count = 5): Promise<void> {
  const [one] = open.instances;
  const keys = collections.flatMap((collection) =>
    Array.from({ length: count }, (_, at) => ({ collection, id: `i${at}` })),
  );
  await Promise.all(keys.map((key) => done(one, save("s", { key, messages: [message("a"), message("b")] }))));
  open.clock.move(DAY_MS + 1);
}

describe.each(KINDS)("Cleanup in %s", (kind) => {
  it("says that it is degraded while Redis could not be told of what it removed", async () => {
    let complete = false;
    const cover = async () => ({ complete, lift: () => undefined, withdraw: () => undefined });
    await using open = await openUpkeep(kind, { copies: { ...NO_COPIES, cover } });
    await withExpired(open, ["conversation", "support"]);
    let marks = 0;
    const degraded = () => {
      marks++;
    };
    expect(await cleanUp(open, { dryRun: true }, { degraded })).toMatchObject({ removedConversations: 10n });
    expect(marks).toBe(0);
    await cleanUp(open, { collection: "conversation" }, { degraded });
    expect(marks).toBe(1);
    complete = true;
    await cleanUp(open, { collection: "support" }, { degraded });
    expect(marks).toBe(1);
  });

  it("removes what has expired in all collections that the caller may use, and says what it was", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation", "support", "private"]);
    const reply = await cleanUp(open);
    expect(reply).toMatchObject({
      ...{ removedConversations: 10n, removedMessages: 20n, removedTombstones: 0n, more: false },
    });
    const names = reply.removed.map(({ collection, id }) => `${collection}/${id}`).toSorted();
    expect(names).toEqual(
      ["conversation", "support"].flatMap((collection) => [0, 1, 2, 3, 4].map((at) => `${collection}/i${at}`)),
    );
    expect(await live(open, "presence = 1 AND collection = 'private'")).toBe(5);
    expect(await cleanUp(open)).toMatchObject({ removedConversations: 0n, removed: [], more: false });
  });

  it("keeps to one collection when it is named, and takes an empty name for the usual one", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation", "support"]);
    expect(await cleanUp(open, { collection: "support" })).toMatchObject({ removedConversations: 5n });
    expect(await live(open)).toBe(5);
    expect(await cleanUp(open, { collection: "" })).toMatchObject({ removedConversations: 5n });
    expect(await live(open)).toBe(0);
  });

  it("removes tombstones that have been kept long enough, and counts them", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    open.policies.set("short", { ...DEFAULT_POLICY, tombstoneMs: 60_000 });
    await withExpired(open, ["short"]);
    // A day later the memory of having expired is outlived at once.
    open.clock.move(60_000);
    expect(await cleanUp(open)).toMatchObject({ removedConversations: 5n, removedTombstones: 5n });
    expect(await countOf(one, "conversation")).toBe(0);
    const key = { collection: "short", id: "d" };
    await done(one, save("s", { key }));
    await done(one, remove({ key }));
    expect(await cleanUp(open)).toMatchObject({ removedTombstones: 0n });
    open.clock.move(60_000);
    expect(await cleanUp(open)).toMatchObject({ removedConversations: 0n, removedTombstones: 1n, removed: [] });
  });

  it("stops at the limit and says whether there is more", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation"], 250);
    expect(await cleanUp(open, { limit: 120 })).toMatchObject({ removedConversations: 120n, more: true });
    expect(await cleanUp(open, { limit: 129 })).toMatchObject({ removedConversations: 129n, more: true });
    expect(await cleanUp(open, { limit: 1 })).toMatchObject({ removedConversations: 1n, more: false });
    expect(await cleanUp(open, { limit: 1 })).toMatchObject({ removedConversations: 0n, more: false });
  });

  it("counts conversations and tombstones towards one limit", async () => {
    await using open = await openUpkeep(kind);
    open.policies.set("short", { ...DEFAULT_POLICY, tombstoneMs: 60_000 });
    await withExpired(open, ["short"]);
    open.clock.move(60_000);
    expect(await cleanUp(open, { limit: 7 })).toMatchObject({
      ...{ removedConversations: 5n, removedTombstones: 2n, more: true },
    });
    expect(await cleanUp(open, { limit: 7 })).toMatchObject({ removedTombstones: 3n, more: false });
  });

  it("names the first thousand", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation"], 1101);
    const reply = await cleanUp(open, { dryRun: true });
    expect(reply.removedConversations).toBe(1101n);
    expect(reply.removed).toHaveLength(1000);
    expect(new Set(reply.removed.map(({ id }) => id)).size).toBe(1000);
  });

  it("changes nothing in a dry run, and says what would be removed", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await withExpired(open, ["conversation", "private"]);
    const key = { collection: "conversation", id: "d" };
    await done(one, save("s", { key }));
    await done(one, remove({ key }));
    open.clock.move(DAY_MS);
    const dry = await cleanUp(open, { dryRun: true });
    expect(dry).toMatchObject({ removedConversations: 5n, removedMessages: 10n, removedTombstones: 1n, more: false });
    expect(await countOf(one, "conversation WHERE presence = 1")).toBe(10);
    expect(await cleanUp(open, { dryRun: true, limit: 3 })).toMatchObject({ removedConversations: 3n, more: true });
  });

  it("ends before the deadline and says that there is more", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation"], 250);
    const { clock, instances } = open;
    const [one] = instances;
    // Each portion takes a second of this clock, and three are left.
    const slow: OpenUpkeep = {
      ...open,
      instances: [
        {
          ...one,
          removal: (order) =>
            one.removal({
              ...order,
              goOn: async () => {
                const goesOn = await order.goOn();
                clock.move(1000);
                return goesOn;
              },
            }),
        },
      ],
    };
    expect(await cleanUp(slow, {}, { deadline: clock.now() + 3000 })).toMatchObject({
      ...{ removedConversations: 200n, more: true },
    });
    expect(await cleanUp(open, {}, { deadline: clock.now() })).toMatchObject({ removedConversations: 0n, more: true });
    expect(await cleanUp(open, {}, { deadline: clock.now() + 3000 })).toMatchObject({
      ...{ removedConversations: 50n, more: false },
    });
  });

  it("ends when the caller has hung up, after the portion under way", async () => {
    await using open = await openUpkeep(kind);
    await withExpired(open, ["conversation"], 250);
    const caller = new AbortController();
    const cleaning = cleanUp(open, {}, { signal: caller.signal });
    caller.abort(new Error("hung up"));
    await expect(cleaning).rejects.toThrow("hung up");
    expect(await live(open)).toBeGreaterThanOrEqual(150);
  });
});

it("Cleanup refuses a collection that is not admitted, once nothing is left of it to clean up", async () => {
  await using open = await openUpkeep("sqlite");
  await withExpired(open, ["support"]);
  for (const name of ["support", "suport"]) open.policies.set(name, undefined);
  const unknown = { reason: "COLLECTION_UNKNOWN", violations: [{ field: "collection" }] };
  await expect(cleanUp(open, { collection: "suport" })).rejects.toMatchObject(unknown);
  expect(await cleanUp(open, { collection: "support" })).toMatchObject({ removedConversations: 5n });
  open.clock.move(2 * DAY_MS);
  expect(await cleanUp(open, { collection: "support" })).toMatchObject({ removedTombstones: 5n });
  await expect(cleanUp(open, { collection: "support" })).rejects.toMatchObject(unknown);
});

it.each<[Request, string[]]>([
  [{ collection: "a/b" }, ["collection"]],
  [{ collection: "x".repeat(129), limit: -1 }, ["collection", "limit"]],
])("Cleanup refuses %j, naming every wrong field", async (request, fields) => {
  await using open = await openUpkeep("sqlite");
  const refused = await cleanUp(open, request).catch((error: unknown) => error);
  if (!(refused instanceof InvalidFieldsError)) throw new Error(`not refused: ${String(refused)}`);
  expect(refused.violations.map(({ field }) => field)).toEqual(fields);
});
