import type { JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { DEFAULT_POLICY, KINDS } from "./ledgers.ts";
import { type OpenWrites, openWrites, type Writes } from "./writes.ts";

const id = "c1";
const COPY = "copy";

type Rpc = "save" | "patch" | "append" | "restore" | "fork";

interface Case {
  readonly rpc: Rpc;
  /** A request that is made in a collection where a conversation has two versions. */
  readonly request: (versions: readonly string[]) => JsonObject;
  /** The same request, as another client might write it. */
  readonly same?: JsonObject;
  /** Each makes it another request. */
  readonly others: Readonly<Record<string, JsonObject>>;
}

const message = { role: "user", content: "hello", parts: [{ data: { a: 1, b: [{ c: 1, d: 2 }] } }] };
const expiries = {
  "a ttl": { expiry: { ttl: "60s" } },
  "a mode": { expiry: { ttl: "3600s", mode: "MODE_FIXED" } },
  "no end": { expiry: { never: true } },
};
const messagesOf: Readonly<Record<string, JsonObject>> = {
  "another content": { messages: [{ ...message, content: "bye" }] },
  "another role": { messages: [{ ...message, role: "tool" }] },
  "other data": { messages: [{ ...message, parts: [{ data: { a: 2 } }] }] },
  "a metadata": { messages: [{ ...message, metadata: {} }] },
  "an id": { messages: [{ ...message, id: "m1" }] },
  "one more": { messages: [message, message] },
};
const reordered = {
  messages: [
    {
      parts: [{ data: { b: [{ d: 2, c: 1 }], a: 1 } }],
      ...{ content: "hello", role: "user", createTime: "2026-01-02T03:04:05Z", position: "9" },
    },
  ],
};

const CASES: readonly Case[] = [
  {
    rpc: "save",
    request: ([, last = ""]) => ({
      ...{ state: { a: { x: 1, y: [{ p: 1, q: null }] }, b: "two" }, expectedVersion: last },
      ...{ messages: [message], expiry: { ttl: "3600s" } },
    }),
    same: { state: { b: "two", a: { y: [{ q: null, p: 1 }], x: 1 } }, ...reordered },
    others: {
      "another state": { state: { a: { x: 1, y: [{ p: 1, q: null }] }, b: "three" } },
      "less state": { state: { b: "two" } },
      "another order of a list": { state: { a: { x: 1, y: [{ q: null }, { p: 1 }] }, b: "two" } },
      "another version": { expectedVersion: "7" },
      "any version": { expectedVersion: null },
      "a conflict in the reply": { returnConflict: true },
      "no message": { messages: [] },
      "no expiry": { expiry: null },
      ...messagesOf,
      ...expiries,
    },
  },
  {
    rpc: "patch",
    request: ([, last = ""]) => ({
      ...{ patch: { a: { x: 1, y: null }, b: null }, expectedVersion: last, expiry: { ttl: "3600s" } },
    }),
    same: { patch: { b: null, a: { y: null, x: 1 } } },
    others: {
      "another patch": { patch: { a: { x: 2, y: null }, b: null } },
      // Of nothing, both make the same.
      "a patch that removes less": { patch: { a: { x: 1 }, b: null } },
      "another version": { expectedVersion: "7" },
      "any version": { expectedVersion: null },
      "a conflict in the reply": { returnConflict: true },
      "the state in the reply": { returnState: true },
      ...expiries,
    },
  },
  {
    rpc: "append",
    request: ([, last = ""]) => ({
      ...{ messages: [message], expectedVersion: last, patch: { a: 1, b: { c: 1, d: null } } },
      expiry: { ttl: "3600s" },
    }),
    same: { patch: { b: { d: null, c: 1 }, a: 1 }, ...reordered },
    others: {
      "another patch": { patch: { a: 2 } },
      "an empty patch": { patch: {} },
      "no patch": { patch: null },
      "another version": { expectedVersion: "7" },
      "any version": { expectedVersion: null },
      create: { create: true },
      ...messagesOf,
      ...expiries,
    },
  },
  {
    rpc: "restore",
    request: ([first = "", last = ""]) => ({ version: first, expectedVersion: last }),
    others: {
      "another version": { version: "7" },
      "another version to be there": { expectedVersion: "7" },
      "any version": { expectedVersion: null },
      "all messages": { keepMessages: true },
    },
  },
  {
    rpc: "fork",
    request: ([first = ""]) => ({ version: first, targetId: COPY, expiry: { ttl: "3600s" } }),
    others: {
      "another original": { id: "c2" },
      "another collection": { collection: "orchestration", targetCollection: "conversation" },
      "another version": { version: "7" },
      "the current version": { version: "0" },
      ...expiries,
    },
  },
];

async function openCase(kind: (typeof KINDS)[number], { request }: Case): Promise<OpenWrites & { asked: JsonObject }> {
  const opened = await openWrites(kind, { count: 2 });
  opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 5 });
  const [writes] = opened.instances;
  const versions: string[] = [];
  for (const n of [1, 2]) {
    const { summary } = await writes.save({ id, state: { n }, messages: [message] });
    if (typeof summary !== "object" || summary === null || Array.isArray(summary)) throw new Error("no summary");
    versions.push(String(summary.version));
  }
  await writes.save({ id: "c2", state: { n: 1 } });
  return { ...opened, asked: { id, requestId: "r1", ...request(versions) } };
}

const REUSED = {
  ...{ kind: "precondition", reason: "REQUEST_ID_REUSED" },
  metadata: { field: "request_id", request_id: "r1", collection: "conversation" },
};

/** All that there is, so that it is seen when something is written. */
async function rowsIn({ database }: Writes): Promise<unknown> {
  const tables = ["conversation", "conversation_message", "conversation_change", "conversation_request"];
  return await Promise.all(tables.map((table) => database.query(`SELECT * FROM ${table} ORDER BY 1, 2, 3, 4`)));
}

describe.each(KINDS)("a request_id over %s", (kind) => {
  it.each(CASES)(
    "of $rpc names one request: with anything else in it, it is refused and nothing is written",
    async (one) => {
      await using opened = await openCase(kind, one);
      const [writes, elsewhere = writes] = opened.instances;
      const { asked } = opened;
      const first = await writes[one.rpc](asked);
      const before = await rowsIn(writes);
      for (const [what, other] of Object.entries(one.others)) {
        const refusal = await elsewhere[one.rpc]({ ...asked, ...other }).catch((error: unknown) => error);
        expect(refusal, what).toMatchObject(REUSED);
      }
      expect(await elsewhere[one.rpc](asked)).toEqual(first);
      if (one.same !== undefined) expect(await elsewhere[one.rpc]({ ...asked, ...one.same })).toEqual(first);
      // An empty collection is the one that it means.
      expect(await writes[one.rpc]({ ...asked, collection: "conversation" })).toEqual(first);
      expect(await rowsIn(writes)).toEqual(before);
    },
  );

  it.each(CASES)("of $rpc that two use at the same time for different requests is the first one's", async (one) => {
    await using opened = await openCase(kind, one);
    const [writes, elsewhere = writes] = opened.instances;
    const [other] = Object.values(one.others);
    const asked = { ...opened.asked, expectedVersion: null };
    const twin = { ...asked, ...(one.rpc === "restore" ? { keepMessages: true } : other) };
    if (one.rpc === "fork") for (const request of [asked, twin]) Reflect.deleteProperty(request, "expectedVersion");
    const [first, second, again] = await Promise.allSettled([
      writes[one.rpc](asked),
      elsewhere[one.rpc](twin),
      elsewhere[one.rpc](asked),
    ]);
    const isFirst = first.status === "fulfilled";
    if (!isFirst) expect(first.reason).toMatchObject(REUSED);
    else if (second.status === "rejected") expect(second.reason).toMatchObject(REUSED);
    expect(isFirst).not.toBe(second.status === "fulfilled");
    // A retry on another instance fares as the request that it repeats.
    if (isFirst) expect(again).toEqual(first);
    else expect(again).toMatchObject({ status: "rejected", reason: REUSED });
  });

  it("is another one for another RPC, at another conversation, and after ten minutes", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const named = { id, requestId: "r1" };
    await writes.save({ ...named, state: { a: 1 } });
    await writes.patch({ ...named, patch: { b: 1 } });
    await writes.append({ ...named, messages: [message] });
    await writes.save({ ...named, id: "c2", state: { a: 2 } });
    await expect(writes.save({ ...named, state: { a: 2 } })).rejects.toMatchObject(REUSED);
    opened.clock.move(600_000);
    expect(await writes.save({ ...named, state: { a: 2 } })).toMatchObject({ summary: { messageCount: "1" } });
  });

  it("is not used up by a request that was refused", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const named = { id, requestId: "r1" };
    await expect(writes.save({ ...named, state: {}, expectedVersion: "5" })).rejects.toMatchObject({
      reason: "VERSION_CONFLICT",
    });
    expect(await writes.save({ ...named, state: {}, expectedVersion: "0" })).toMatchObject({ created: true });
  });

  it("of a Fork that is given its target names it together with what is copied", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: { n: 1 } });
    const request = { id, requestId: "r1" };
    const first = await writes.fork(request);
    expect(await writes.fork(request)).toEqual(first);
    await expect(writes.fork({ ...request, expiry: { never: true } })).rejects.toMatchObject(REUSED);
  });
});
