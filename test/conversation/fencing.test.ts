import { randomUUID } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LockAuthorityUnavailableError } from "../../src/lock/failures.ts";
import { append, DEFAULT_POLICY, done, KINDS, message, messagesOf, patch, save, stateOf } from "./ledgers.ts";
import { type OpenWrites, openWrites, type Writes } from "./writes.ts";

type Rpc = "save" | "patch" | "append" | "delete" | "restore";
const RPCS: readonly Rpc[] = ["save", "patch", "append", "delete", "restore"];

describe.each(KINDS)("writes of conversations under a lock, over %s", (kind) => {
  let opened: OpenWrites;
  let writes: Writes;
  /** Another instance, where there may be one. */
  let elsewhere: Writes;
  /** The newest token of each lock; what is not there was never granted. */
  const granted = new Map<string, number>();
  let locksAreAway = false;

  beforeAll(async () => {
    const lastTokenOf = async (lock: string) => {
      if (locksAreAway) throw new LockAuthorityUnavailableError("it was taken away");
      return granted.get(lock) ?? 0;
    };
    opened = await openWrites(kind, { count: 2, lastTokenOf });
    [writes] = opened.instances;
    elsewhere = opened.instances.at(-1) ?? writes;
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 10 });
  });
  afterAll(() => opened[Symbol.asyncDispose]());

  /** A conversation, and a lock with its next holders. */
  async function begin() {
    const [id, lock] = [randomUUID(), `locks/${randomUUID()}`];
    const { held } = await done(writes, save("", { key: keyOf(id) }));
    const version = String(held.version);
    const requests: Record<Rpc, JsonObject> = {
      save: { id, state: { by: "save" } },
      patch: { id, patch: { by: "patch" } },
      append: { id, messages: [{ role: "user", content: "x" }] },
      delete: { id },
      restore: { id, version },
    };
    return {
      ...{ id, lock, requests },
      grant: () => {
        const token = (granted.get(lock) ?? 0) + 1;
        granted.set(lock, token);
        return { lock, token: String(token) };
      },
    };
  }
  const keyOf = (id: string) => ({ collection: "conversation", id });
  const changesOf = async (id: string) =>
    (await writes.database.query("SELECT seq FROM conversation_change WHERE id = $1", [id])).length;
  const stale = (lock: string, token: number, newest: number) => ({
    ...{ kind: "precondition", reason: "FENCING_TOKEN_STALE" },
    metadata: { field: "fencing.token", lock, token: String(token), newest: String(newest) },
  });

  it.each(RPCS)(
    "are made by %s under the newest token, again and again, and not by a holder of before",
    async (rpc) => {
      const { id, lock, requests, grant } = await begin();
      const first = grant();
      await writes.patch({ id, patch: { a: 1 }, fencing: first });
      await elsewhere.patch({ id, patch: { a: 2 }, fencing: first });
      const second = grant();
      await writes.patch({ id, patch: { a: 3 }, fencing: second });
      const before = await changesOf(id);
      for (const instance of [writes, elsewhere]) {
        await expect(instance[rpc]({ ...requests[rpc], fencing: first })).rejects.toMatchObject(stale(lock, 1, 2));
      }
      expect([await changesOf(id), await messagesOf(writes, keyOf(id))]).toEqual([before, []]);
      await elsewhere[rpc]({ ...requests[rpc], fencing: second });
      expect(await changesOf(id)).toBe(before + 1);
    },
  );

  it("are refused an older token in the commit itself, whoever admitted it before", async () => {
    const { id, lock } = await begin();
    const under = (token: number) => ({ key: keyOf(id), fence: { lock, token } });
    await done(writes, save("a", under(4)));
    await done(elsewhere, save("b", under(5)));
    await expect(writes.ledger.carryOut(patch("z", under(4)))).rejects.toMatchObject(stale(lock, 4, 5));
    expect(await stateOf(writes, keyOf(id))).toBe("b");
    // Those that share a commit are looked at in turn.
    const outcomes = await Promise.allSettled(
      [5, 6, 5, 7, 6, 7].map((token) => writes.ledger.carryOut(patch(String(token), under(token)))),
    );
    expect(outcomes.map(({ status }) => status === "fulfilled")).toEqual([true, true, false, true, false, true]);
    expect(await stateOf(writes, keyOf(id))).toBe("b5677");
  });

  it("have one order for all conversations under a lock, and none with those under another or under none", async () => {
    const [one, other] = [await begin(), await begin()];
    const late = one.grant();
    await writes.patch({ ...one.requests.patch, fencing: one.grant() });
    await expect(elsewhere.patch({ ...other.requests.patch, fencing: late })).rejects.toMatchObject(
      stale(one.lock, 1, 2),
    );
    await writes.patch({ ...one.requests.patch, fencing: other.grant() });
    await writes.patch(other.requests.patch);
  });

  it("are told that they are late before they are told of a conflict; and a conflict is seen, too", async () => {
    const { id, lock } = await begin();
    const under = (token: number) => ({ key: keyOf(id), fence: { lock, token }, expectedVersion: 1 });
    expect(await writes.ledger.carryOut(save("z", under(2)))).toMatchObject({ kind: "conflict" });
    await expect(elsewhere.ledger.carryOut(save("z", under(1)))).rejects.toMatchObject(stale(lock, 1, 2));
  });

  it("are answered again under their request_id, also when the lock has gone on; others are not", async () => {
    const { id, lock, requests, grant } = await begin();
    const request = { ...requests.append, requestId: "r", fencing: grant() };
    const answer = await writes.append(request);
    const next = grant();
    await writes.patch({ ...requests.patch, fencing: next });
    for (const instance of [writes, elsewhere]) {
      expect(await instance.append(request)).toEqual(answer);
      const other = { ...request, requestId: "another" };
      await expect(instance.append(other)).rejects.toMatchObject(stale(lock, 1, 2));
      // The lock is no part of what was asked.
      expect(await instance.append({ ...request, fencing: next })).toEqual(answer);
    }
    expect((await messagesOf(writes, keyOf(id))).length).toBe(1);
  });

  it("are refused under a token that was never granted", async () => {
    const { id, lock, requests } = await begin();
    granted.set(lock, 3);
    const before = await changesOf(id);
    await expect(writes.save({ ...requests.save, fencing: { lock, token: "4" } })).rejects.toMatchObject({
      ...{ kind: "precondition", reason: "FENCING_TOKEN_UNKNOWN" },
      metadata: { field: "fencing.token", lock, token: "4", newest: "3" },
    });
    // And so nobody is kept out who has the newest.
    await writes.append({ ...requests.append, fencing: { lock, token: "3" } });
    expect(await changesOf(id)).toBe(before + 1);
  });

  it("are not made while nobody can say whether the token is the newest", async () => {
    const { id, requests, grant } = await begin();
    const request = { ...requests.append, requestId: "r", fencing: grant() };
    const answer = await writes.append(request);
    const next = grant();
    locksAreAway = true;
    const before = await changesOf(id);
    try {
      for (const requestId of ["", "another"]) {
        await expect(writes.append({ ...request, requestId, fencing: next })).rejects.toMatchObject({
          ...{ kind: "unavailable", reason: "LOCK_AUTHORITY_UNAVAILABLE", retryAfterMs: expect.any(Number) },
        });
      }
      expect(await changesOf(id)).toBe(before);
      expect(await elsewhere.append(request)).toEqual(answer);
    } finally {
      locksAreAway = false;
    }
    await writes.append({ ...requests.append, fencing: next });
  });

  it("of many at once share commits with those that are under no lock", async () => {
    const { id, lock } = await begin();
    const orders = Array.from({ length: 40 }, (_, at) => {
      const fence = at % 2 === 0 ? undefined : { lock: `${lock}-${at % 3}`, token: 7 };
      return append([message(`m${at}`)], { key: keyOf(id), fence });
    });
    await Promise.all(orders.map((order, at) => (at % 4 < 2 ? writes : elsewhere).ledger.carryOut(order)));
    expect((await messagesOf(writes, keyOf(id))).length).toBe(40);
  });
});
