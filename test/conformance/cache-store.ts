import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Announcer } from "../../src/cache/change.ts";
import { type CacheValue, type Draft, isFresh, tombstone } from "../../src/cache/record.ts";
import { type CacheStore, type Guard, ListingInterruptedError, type Write } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";
import { describeFences, type FenceScope } from "./cache-fences.ts";

/** What a store is made with, so that the suite can move its time and hear what it announces. */
export interface StoreParts {
  readonly clock: MovedClock;
  readonly newStamp: () => number;
  readonly announcer: Announcer;
}

export interface CacheStoreHarness {
  /** A store over the same data as every other one opened here: as many instances as the backend allows. */
  open(): CacheStore;
  /** What other instances were told on the channel, in the order of arrival. Undefined where there are no others. */
  readonly heard: readonly string[] | undefined;
  /** Puts something that is not ours where the record of the key is kept. */
  readonly spoil?: (namespace: string, key: string, kind: "text" | "damaged header" | "other type") => Promise<void>;
  close(): Promise<void>;
}

export type CacheStoreFactory = (parts: StoreParts, channel: string) => Promise<CacheStoreHarness>;

/** Where backends differ by nature. */
export interface CacheStoreQuirks {
  /** Leases and remembered answers end by the server's own clock, which no test moves. */
  readonly ownClock?: boolean;
  /** A listing is not in the order of the keys, and may name one twice. */
  readonly unordered?: boolean;
  /** Announcements come from several nodes, whose messages have no order among each other. */
  readonly manyVoices?: boolean;
  /** What the token of a write is compared with. Default: what came to any key. */
  readonly fences?: FenceScope;
}

const MINUTE = 60_000;
const ODD_KEYS = [
  "plain",
  "with space",
  "a/b/c",
  "{braces}",
  "}{",
  "a}b{c",
  "star*",
  "quest?on",
  "[set]",
  "back\\slash",
  "quote\"s'",
  "new\nline",
  "tab\t",
  "%25",
  "-",
  "ключ",
  "鍵🗝️",
  "\u0001\u007f",
  "k".repeat(1024),
  "é".repeat(512),
];

export function describeCacheStore(name: string, factory: CacheStoreFactory, quirks: CacheStoreQuirks = {}): void {
  describe(name, () => {
    const clock = movedClock();
    const versions = createVersions(clock);
    const channel = `conformance.${Math.random().toString(36).slice(2)}`;
    const announcer: Announcer = (kind, namespace, subject) => ({
      channel,
      before: `${kind} `,
      after: ` ${JSON.stringify([namespace, subject])}`,
    });
    let harness: CacheStoreHarness;
    let store: CacheStore;
    let names = 0;
    const newNamespace = () => `ns${names++}`;

    beforeAll(async () => {
      harness = await factory({ clock, newStamp: () => versions.next(), announcer }, channel);
      store = harness.open();
    });
    afterAll(() => harness.close());

    function draft(data: CacheValue["data"], more: Partial<Draft> = {}): Draft {
      return {
        version: versions.next(),
        deleted: false,
        value: { data, contentType: "" },
        createdAt: clock.now(),
        expiresAt: undefined,
        staleUntil: undefined,
        tags: [],
        ...more,
      };
    }

    function dies(ttlMs: number, staleMs = 0): Pick<Draft, "expiresAt" | "staleUntil"> {
      return { expiresAt: clock.now() + ttlMs, staleUntil: clock.now() + ttlMs + staleMs };
    }

    async function write(namespace: string, key: string, one: Draft, guard: Guard = { kind: "none" }, on = store) {
      const order: Write = { key, draft: one, guard, announce: one.deleted ? "deleted" : "set" };
      const [result] = await on.write(namespace, [order]);
      if (result === undefined) throw new Error("a write got no result");
      return result;
    }

    async function stored(namespace: string, key: string, one: Draft, guard?: Guard, on = store): Promise<number> {
      const result = await write(namespace, key, one, guard, on);
      if (!result.stored) throw new Error(`refused: ${result.why}`);
      return result.version;
    }

    async function why(namespace: string, key: string, one: Draft, guard: Guard) {
      const result = await write(namespace, key, one, guard);
      return result.stored ? "stored" : result.why;
    }

    async function readOne(namespace: string, key: string, on = store) {
      const [result] = await on.read(namespace, [key]);
      if (result === undefined) throw new Error("a read got no result");
      return result;
    }

    /** The value a caller would be given now; undefined for a miss. */
    async function value(namespace: string, key: string, on = store): Promise<CacheValue["data"] | undefined> {
      const { record, valid } = await readOne(namespace, key, on);
      return record !== undefined && valid && isFresh(record, clock.now()) ? record.value.data : undefined;
    }

    async function listAll(namespace: string, prefix: string, limit: number): Promise<string[]> {
      const keys: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await store.list(namespace, prefix, limit, cursor);
        expect(page.keys.length).toBeLessThanOrEqual(limit);
        keys.push(...page.keys.map((info) => info.key));
        cursor = page.cursor;
      } while (cursor !== undefined);
      return quirks.unordered ? [...new Set(keys)].sort() : keys;
    }

    const lease = (token: string, seen: number, grantedAt: number): Guard => ({
      kind: "lease",
      token,
      seen,
      grantedAt,
    });

    describe("a record", () => {
      it("is not there before it is written", async () => {
        expect(await store.read(newNamespace(), ["a", "b"])).toEqual([
          { record: undefined, valid: false, layer: store.layer },
          { record: undefined, valid: false, layer: store.layer },
        ]);
      });

      it("comes back exactly as it was written", async () => {
        const ns = newNamespace();
        const tags = Array.from({ length: 64 }, (_, i) => `tag ${i} {,}:*🏷`);
        const one = draft('{"a":1}', { tags, value: { data: '{"a":1}', contentType: "application/json; a=b, c" } });
        const full: Draft = { ...one, ...dies(MINUTE, MINUTE) };
        const result = await write(ns, "k", full);
        expect(result).toMatchObject({ stored: true, version: full.version, layer: store.layer });
        const { record, valid } = await readOne(ns, "k");
        expect(valid).toBe(true);
        expect(record).toMatchObject(full);
        expect(record?.stamps).toHaveLength(65);
        if (result.stored) expect(record?.stamps).toEqual(result.stamps);
      });

      it.each([
        ["empty text", ""],
        ["text with lines, NUL and unicode", "a\n\u0000\r\nh1 5 t\n🗝️\u2028"],
        ["a long text", "ä".repeat(300_000)],
      ])("keeps %s", async (_, text) => {
        const ns = newNamespace();
        await stored(ns, "k", draft(text));
        expect(await value(ns, "k")).toBe(text);
      });

      it.each([
        ["no bytes", new Uint8Array(0)],
        ["every byte", Uint8Array.from({ length: 256 }, (_, i) => i)],
        ["newlines and NUL", Buffer.from("\n\n\0\n")],
        ["bytes that are no UTF-8", Uint8Array.of(0xff, 0xfe, 0x0a, 0x80)],
        ["a part of a larger buffer", new Uint8Array(Buffer.from("xxpartxx").buffer.slice(0)).subarray(2, 6)],
      ])("keeps %s", async (_, bytes) => {
        const ns = newNamespace();
        await stored(ns, "k", draft(bytes));
        const read = await value(ns, "k");
        expect(read).toBeInstanceOf(Uint8Array);
        expect(Buffer.from(read ?? "")).toEqual(Buffer.from(bytes));
      });

      it.each(["", "-", "text/plain", "a b\tc", "%2D", "x,y z", "типа🗝"])(
        "keeps the content type %j",
        async (contentType) => {
          const ns = newNamespace();
          await stored(ns, "k", draft("v", { value: { data: "v", contentType } }));
          expect((await readOne(ns, "k")).record?.value).toEqual({ data: "v", contentType });
        },
      );

      it("may have any key, and none is taken for another", async () => {
        const ns = newNamespace();
        await store.write(
          ns,
          ODD_KEYS.map((key) => ({ key, draft: draft(`of ${key}`), guard: { kind: "none" }, announce: "set" })),
        );
        const read = await store.read(ns, ODD_KEYS);
        expect(read.map(({ record }) => record?.value.data)).toEqual(ODD_KEYS.map((key) => `of ${key}`));
        expect(await listAll(ns, "", 7)).toHaveLength(ODD_KEYS.length);
      });

      it("belongs to its namespace alone", async () => {
        const [one, other] = [newNamespace(), newNamespace()];
        await stored(one, "k", draft("1"));
        expect(await value(other, "k")).toBeUndefined();
      });

      it("is seen by every other instance at once", async () => {
        const ns = newNamespace();
        await stored(ns, "k", draft("1"));
        expect(await value(ns, "k", harness.open())).toBe("1");
      });

      it("outlives its expiry to be served stale, and says when it expired", async () => {
        const ns = newNamespace();
        const one = draft("old", dies(1_000, 10 * MINUTE));
        await stored(ns, "k", one);
        clock.move(2_000);
        const { record, valid } = await readOne(ns, "k");
        expect(valid).toBe(true);
        expect(record).toMatchObject({ value: { data: "old" }, expiresAt: one.expiresAt });
        expect(await value(ns, "k")).toBeUndefined();
      });

      it("leaves a tombstone when deleted", async () => {
        const ns = newNamespace();
        await stored(ns, "k", draft("v"));
        const dead = tombstone(versions.next(), clock.now());
        await stored(ns, "k", dead);
        expect((await readOne(ns, "k")).record).toMatchObject({ deleted: true, version: dead.version });
      });

      it("is written to several keys at once, each stored or refused by itself", async () => {
        const ns = newNamespace();
        await stored(ns, "b", draft("there"));
        const results = await store.write(
          ns,
          ["a", "b", "c"].map((key) => ({
            key,
            draft: draft("new"),
            guard: { kind: "version", seen: 0 },
            announce: "set",
          })),
        );
        expect(results.map((result) => (result.stored ? "stored" : result.why))).toEqual([
          "stored",
          "version",
          "stored",
        ]);
        expect(await Promise.all(["a", "b", "c"].map((key) => value(ns, key)))).toEqual(["new", "there", "new"]);
      });
    });

    describe("a version", () => {
      it("grows with each write, also by a clock that is behind", async () => {
        const ns = newNamespace();
        const first = await stored(ns, "k", draft("1"));
        const second = await stored(ns, "k", draft("2", { version: first - 1_000_000 }));
        const third = await stored(ns, "k", draft("3", { version: second }));
        expect(second).toBeGreaterThan(first);
        expect(third).toBeGreaterThan(second);
        expect((await readOne(ns, "k")).record).toMatchObject({ version: third, value: { data: "3" } });
      });

      it("grows across a deletion and a new creation", async () => {
        const ns = newNamespace();
        const first = await stored(ns, "k", draft("1"));
        const gone = await stored(ns, "k", tombstone(first - 5, clock.now()));
        const back = await stored(ns, "k", draft("2", { version: first - 5 }));
        expect(gone).toBeGreaterThan(first);
        expect(back).toBeGreaterThan(gone);
      });

      it("is the one proposed, where a write is held to the version seen", async () => {
        const ns = newNamespace();
        const seen = await stored(ns, "k", draft("1"));
        const next = draft("2", { version: seen + 1 });
        expect(await stored(ns, "k", next, { kind: "version", seen })).toBe(seen + 1);
      });

      it("grows also where a write is held to the version seen", async () => {
        const ns = newNamespace();
        const seen = await stored(ns, "k", draft("1"));
        const after = await stored(ns, "k", draft("2", { version: seen - 10 }), { kind: "version", seen });
        expect(after).toBeGreaterThan(seen);
      });
    });

    describe("a write held to its order", () => {
      it("replaces what has a smaller version, not what has a larger one, and voids the lease", async () => {
        const ns = newNamespace();
        const late = draft("late");
        const ordered = { kind: "none", ordered: true } as const;
        const first = await stored(ns, "k", draft("1"), ordered);
        expect(await write(ns, "k", late, ordered)).toMatchObject({ stored: false, why: "version" });
        expect(await value(ns, "k")).toBe("1");
        const dead = await stored(ns, "k", tombstone(versions.next(), clock.now()));
        expect(await why(ns, "k", draft("late", { version: first + 1 }), ordered)).toBe("version");
        await store.acquireLease(ns, "k", `${dead}.1.${"a".repeat(16)}`, clock.now() + MINUTE);
        expect(await stored(ns, "k", draft("2", { version: dead + 1 }), ordered)).toBe(dead + 1);
        const other = `${dead + 1}.1.${"b".repeat(16)}`;
        expect(await store.acquireLease(ns, "k", other, clock.now() + MINUTE)).toEqual({ granted: true });
      });
    });

    describe("a write held to a version", () => {
      it("is refused when the key changed, was made or was deleted meanwhile", async () => {
        const ns = newNamespace();
        expect(await why(ns, "k", draft("x"), { kind: "version", seen: 5 })).toBe("version");
        const first = await stored(ns, "k", draft("1"), { kind: "version", seen: 0 });
        expect(await why(ns, "k", draft("x"), { kind: "version", seen: 0 })).toBe("version");
        const second = await stored(ns, "k", draft("2"), { kind: "version", seen: first });
        expect(await why(ns, "k", draft("x"), { kind: "version", seen: first })).toBe("version");
        const dead = await stored(ns, "k", tombstone(versions.next(), clock.now()));
        expect(await why(ns, "k", draft("x"), { kind: "version", seen: second })).toBe("version");
        expect(await why(ns, "k", draft("x"), { kind: "version", seen: 0 })).toBe("version");
        expect(await why(ns, "k", draft("3"), { kind: "version", seen: dead })).toBe("stored");
        expect(await value(ns, "k")).toBe("3");
      });

      it("may be stored where there is no record any more, if it says so", async () => {
        const ns = newNamespace();
        const guard = { kind: "version", seen: versions.next(), orAbsent: true } as const;
        expect(await why(ns, "gone", draft("back"), guard)).toBe("stored");
        await stored(ns, "changed", draft("1"));
        expect(await why(ns, "changed", draft("x"), guard)).toBe("version");
      });

      it("is refused when overtaken by an invalidation, and told by which", async () => {
        const ns = newNamespace();
        const seen = await stored(ns, "k", draft("1", { tags: ["t"] }));
        const grantedAt = versions.next();
        await store.invalidate(ns, ["t"], versions.next());
        const guard: Guard = { kind: "version", seen, grantedAt };
        const result = await write(ns, "k", draft("2", { tags: ["t"] }), guard);
        expect(result).toMatchObject({ stored: false, why: "overtaken" });
        if (!result.stored && result.why === "overtaken") expect(result.stamp).toBeGreaterThan(grantedAt);
        expect(await why(ns, "k", draft("2"), guard)).toBe("stored");
      });
    });

    describe("a copy of what is true elsewhere", () => {
      it("replaces older ones only", async () => {
        const ns = newNamespace();
        const [old, middle, young] = [draft("old"), draft("middle"), draft("young")];
        const newer: Guard = { kind: "newer" };
        expect(await why(ns, "k", middle, newer)).toBe("stored");
        expect(await why(ns, "k", old, newer)).toBe("version");
        expect(await why(ns, "k", middle, newer)).toBe("version");
        expect(await stored(ns, "k", young, newer)).toBe(young.version);
        expect(await value(ns, "k")).toBe("young");
      });

      it("may take the place that a tombstone of its version kept for it", async () => {
        const ns = newNamespace();
        const one = draft("1");
        await stored(ns, "k", tombstone(one.version, clock.now()));
        expect(await why(ns, "k", draft("0", { version: one.version - 1 }), { kind: "newer" })).toBe("version");
        expect(await why(ns, "k", one, { kind: "newer" })).toBe("stored");
        expect(await value(ns, "k")).toBe("1");
        expect(await why(ns, "k", tombstone(one.version, clock.now()), { kind: "newer" })).toBe("version");
      });

      it("leaves a lease alone", async () => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        await store.acquireLease(ns, "k", "mine", clock.now() + MINUTE);
        const copy = await stored(ns, "k", draft("copy"), { kind: "newer" });
        expect(await why(ns, "k", draft("computed"), lease("mine", copy, grantedAt))).toBe("stored");
      });

      it("is refused when overtaken by an invalidation", async () => {
        const ns = newNamespace();
        await stored(ns, "other", draft("1", { tags: ["t"] }));
        const grantedAt = versions.next();
        await store.invalidate(ns, [], versions.next());
        expect(await why(ns, "k", draft("2"), { kind: "newer", grantedAt })).toBe("overtaken");
      });
    });

    describe("a lease", () => {
      it("is one caller's at a time", async () => {
        const ns = newNamespace();
        const expiresAt = clock.now() + MINUTE;
        const others = Array.from({ length: 20 }, () => harness.open());
        const grants = await Promise.all(others.map((one, i) => one.acquireLease(ns, "k", `token ${i}`, expiresAt)));
        expect(grants.filter((grant) => grant.granted)).toHaveLength(1);
        for (const grant of grants) {
          if (!grant.granted) expect(Math.abs(grant.heldUntil - expiresAt)).toBeLessThan(30_000);
        }
        expect(await store.acquireLease(ns, "another", "x", expiresAt)).toEqual({ granted: true });
      });

      it("lets its holder store, once", async () => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        await store.acquireLease(ns, "k", "mine", clock.now() + MINUTE);
        expect(await why(ns, "k", draft("not mine"), lease("yours", 0, grantedAt))).toBe("lease");
        expect(await why(ns, "k", draft("1"), lease("mine", 0, grantedAt))).toBe("stored");
        expect(await why(ns, "k", draft("2"), lease("mine", 0, grantedAt))).toBe("lease");
        expect(await value(ns, "k")).toBe("1");
        expect(await store.acquireLease(ns, "k", "next", clock.now() + MINUTE)).toEqual({ granted: true });
      });

      it("covers an expired value that is still there, and one that went meanwhile", async () => {
        const ns = newNamespace();
        const seen = await stored(ns, "there", draft("old", dies(1, MINUTE)));
        for (const [key, had] of [
          ["there", seen],
          ["went", seen],
        ] as const) {
          const grantedAt = versions.next();
          await store.acquireLease(ns, key, "mine", clock.now() + MINUTE);
          expect(await why(ns, key, draft("new"), lease("mine", had, grantedAt))).toBe("stored");
        }
      });

      it.each(["write", "deletion", "conditional write"])("is void after a %s by another", async (what) => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        await store.acquireLease(ns, "k", "mine", clock.now() + MINUTE);
        if (what === "deletion") await stored(ns, "k", tombstone(versions.next(), clock.now()));
        else await stored(ns, "k", draft("theirs"), what === "write" ? undefined : { kind: "version", seen: 0 });
        expect(await why(ns, "k", draft("mine"), lease("mine", 0, grantedAt))).toBe("lease");
        expect(await store.acquireLease(ns, "k", "next", clock.now() + MINUTE)).toEqual({ granted: true });
      });

      it("ends, then another has it and the first is refused", async () => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        const ttl = quirks.ownClock ? 30 : MINUTE;
        await store.acquireLease(ns, "k", "slow", clock.now() + ttl);
        if (!quirks.ownClock) clock.move(MINUTE + 1);
        await until(async () => (await store.acquireLease(ns, "k", "next", clock.now() + MINUTE)).granted, {
          what: "the lease to end",
        });
        expect(await why(ns, "k", draft("late"), lease("slow", 0, grantedAt))).toBe("lease");
        expect(await why(ns, "k", draft("in time"), lease("next", 0, versions.next()))).toBe("stored");
      });

      it.each([["tag"], ["namespace"]])("does not store what a %s invalidation has overtaken", async (what) => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        await store.acquireLease(ns, "k", "mine", clock.now() + MINUTE);
        // Never used before: nobody knows it, and it must count all the same.
        await store.invalidate(ns, what === "tag" ? ["t"] : [], versions.next());
        expect(await why(ns, "k", draft("computed before", { tags: ["t"] }), lease("mine", 0, grantedAt))).toBe(
          "overtaken",
        );
      });

      it("is not overtaken by the first use of its tags or namespace by another key", async () => {
        const ns = newNamespace();
        const grantedAt = versions.next();
        await store.acquireLease(ns, "a", "of a", clock.now() + MINUTE);
        await stored(ns, "b", draft("b", { tags: ["t"] }));
        expect(await why(ns, "a", draft("a", { tags: ["t"] }), lease("of a", 0, grantedAt))).toBe("stored");
        expect(await value(ns, "a")).toBe("a");
      });
    });

    describe("an invalidation", () => {
      it("of a tag ends what carries it and was there before, and nothing else", async () => {
        const ns = newNamespace();
        await stored(ns, "a", draft("a", { tags: ["x", "t"] }));
        await stored(ns, "b", draft("b", { tags: ["x"] }));
        await stored(ns, "c", draft("c"));
        await store.invalidate(ns, ["t"], versions.next());
        expect(await Promise.all(["a", "b", "c"].map((key) => value(ns, key)))).toEqual([undefined, "b", "c"]);
        await stored(ns, "a", draft("a2", { tags: ["x", "t"] }));
        expect(await value(ns, "a")).toBe("a2");
      });

      it("of a namespace ends all that was there before", async () => {
        const [ns, other] = [newNamespace(), newNamespace()];
        for (const one of [ns, other]) await stored(one, "a", draft("a", { tags: ["t"] }));
        await store.invalidate(ns, [], versions.next());
        expect(await value(ns, "a")).toBeUndefined();
        expect(await value(other, "a")).toBe("a");
        await stored(ns, "a", draft("a2", { tags: ["t"] }));
        expect(await value(ns, "a")).toBe("a2");
      });

      it("of several tags at once ends what carries any", async () => {
        const ns = newNamespace();
        for (const tag of ["x", "y", "z"]) await stored(ns, tag, draft(tag, { tags: [tag] }));
        await store.invalidate(ns, ["y", "unknown", "x"], versions.next());
        expect(await Promise.all(["x", "y", "z"].map((key) => value(ns, key)))).toEqual([undefined, undefined, "z"]);
      });

      it("counts also by a clock that is behind", async () => {
        const ns = newNamespace();
        await stored(ns, "a", draft("a", { tags: ["t"] }));
        await store.invalidate(ns, ["t"], versions.next());
        await stored(ns, "a", draft("a2", { tags: ["t"] }));
        await store.invalidate(ns, ["t"], 1_000);
        expect(await value(ns, "a")).toBeUndefined();
        await stored(ns, "a", draft("a3", { tags: ["t"] }));
        expect(await value(ns, "a")).toBe("a3");
      });

      it("of what nobody carries changes nothing", async () => {
        const ns = newNamespace();
        await store.invalidate(ns, ["nobody's"], versions.next());
        await store.invalidate(newNamespace(), [], versions.next());
        await stored(ns, "k", draft("v", { tags: ["nobody's"] }));
        expect(await value(ns, "k")).toBe("v");
      });

      it("among concurrent writes leaves each of them either valid or invalid, the same for all readers", async () => {
        const ns = newNamespace();
        const keys = Array.from({ length: 40 }, (_, i) => `k${i}`);
        const other = harness.open();
        await Promise.all([
          ...keys.map((key) => stored(ns, key, draft(key, { tags: ["t"] }))),
          store.invalidate(ns, ["t"], versions.next()),
          other.invalidate(ns, ["t"], versions.next()),
        ]);
        const [here, there] = await Promise.all([store.read(ns, keys), other.read(ns, keys)]);
        expect(here.map((result) => result.valid)).toEqual(there.map((result) => result.valid));
        await store.invalidate(ns, ["t"], versions.next());
        expect((await other.read(ns, keys)).some((result) => result.valid)).toBe(false);
      });
    });

    describe("a remembered answer", () => {
      const order = (one: Draft, id: string, answer: string, guard: Guard, ttl = MINUTE): Write => ({
        key: "k",
        draft: one,
        guard,
        announce: "set",
        request: { id, answer, expiresAt: clock.now() + ttl },
      });

      it("is there exactly when its write was stored", async () => {
        const ns = newNamespace();
        const id = "request {1}:🗝";
        expect(await store.recall(ns, "k", id)).toBeUndefined();
        await store.write(ns, [order(draft("1"), id, '{"a":1}', { kind: "version", seen: 0 })]);
        await store.write(ns, [order(draft("2"), "refused", "no", { kind: "version", seen: 0 })]);
        expect(await store.recall(ns, "k", id)).toBe('{"a":1}');
        expect(await store.recall(ns, "k", "refused")).toBeUndefined();
        expect(await store.recall(ns, "other", id)).toBeUndefined();
        expect(await harness.open().recall(ns, "k", id)).toBe('{"a":1}');
      });

      it("is there also for a write that was given a larger version than it proposed", async () => {
        const ns = newNamespace();
        const seen = await stored(ns, "k", draft("1"));
        await store.write(ns, [order(draft("2", { version: seen - 5 }), "r", "yes", { kind: "none" })]);
        expect(await store.recall(ns, "k", "r")).toBe("yes");
      });

      it("is not there for a write that lost a race of many", async () => {
        const ns = newNamespace();
        const ids = Array.from({ length: 10 }, (_, i) => `r${i}`);
        const results = await Promise.all(
          ids.map((id) => harness.open().write(ns, [order(draft(id), id, id, { kind: "version", seen: 0 })])),
        );
        const won = ids.filter((_, i) => results[i]?.[0]?.stored);
        expect(won).toHaveLength(1);
        const recalled = await Promise.all(ids.map((id) => store.recall(ns, "k", id)));
        expect(recalled.filter((answer) => answer !== undefined)).toEqual(won);
      });

      it("is not there for a write that was refused because of a row with the very version it proposed", async () => {
        const ns = newNamespace();
        const one = draft("theirs");
        await store.write(ns, [order(one, "theirs", "yes", { kind: "version", seen: 0 })]);
        const same = draft("mine", { version: one.version });
        expect(await store.write(ns, [order(same, "mine", "no", { kind: "version", seen: 0 })])).toMatchObject([
          { stored: false },
        ]);
        expect(await store.recall(ns, "k", "mine")).toBeUndefined();
        expect(await store.recall(ns, "k", "theirs")).toBe("yes");
      });

      it("is forgotten when its time is over", async () => {
        const ns = newNamespace();
        const ttl = quirks.ownClock ? 30 : MINUTE;
        await store.write(ns, [order(draft("1"), "r", "yes", { kind: "none" }, ttl)]);
        if (!quirks.ownClock) clock.move(MINUTE + 1);
        await until(async () => (await store.recall(ns, "k", "r")) === undefined, { what: "it to be forgotten" });
        expect(await value(ns, "k")).toBe("1");
      });
    });

    describe("a listing", () => {
      it("has every fresh and valid key of the prefix, over as many pages as it takes", async () => {
        const ns = newNamespace();
        const keys = Array.from({ length: 57 }, (_, i) => `user:${String(i).padStart(3, "0")}`);
        await Promise.all([...keys, "use", "user", "usfr:1"].map((key) => stored(ns, key, draft("v"))));
        await stored(newNamespace(), "user:elsewhere", draft("v"));
        for (const limit of [1, 10, 57, 1000]) expect(await listAll(ns, "user:", limit)).toEqual(keys);
        expect(await listAll(ns, "", 1000)).toHaveLength(60);
        expect(await listAll(ns, "nothing", 10)).toEqual([]);
      });

      it("says each key's version and expiry", async () => {
        const ns = newNamespace();
        const one = draft("v", { ...dies(MINUTE), tags: ["t"] });
        await stored(ns, "k", one);
        expect(await store.list(ns, "", 10, undefined)).toEqual({
          keys: [{ key: "k", version: one.version, expiresAt: one.expiresAt }],
          cursor: undefined,
        });
      });

      it("has no key that is deleted, expired or invalidated", async () => {
        const ns = newNamespace();
        await stored(ns, "alive", draft("v", { tags: ["u"] }));
        await stored(ns, "deleted", draft("v"));
        await stored(ns, "deleted", tombstone(versions.next(), clock.now()));
        await stored(ns, "expired", draft("v", dies(1_000, 10 * MINUTE)));
        await stored(ns, "tagged", draft("v", { tags: ["u", "t"] }));
        await store.invalidate(ns, ["t"], versions.next());
        clock.move(1_500);
        expect(await listAll(ns, "", 1)).toEqual(["alive"]);
      });

      it.each(ODD_KEYS)("takes the prefix %j by its letters", async (prefix) => {
        const ns = newNamespace();
        const longer = Buffer.byteLength(prefix) < 1_000 ? [`${prefix}1`, `${prefix}*2`] : [];
        const wanted = [prefix, ...longer];
        await Promise.all([...wanted, "other", `x${prefix.slice(0, 50)}`].map((key) => stored(ns, key, draft("v"))));
        expect((await listAll(ns, prefix, 2)).sort()).toEqual(wanted.sort());
      });

      it("shows headers longer than most", async () => {
        const ns = newNamespace();
        const tags = Array.from({ length: 64 }, (_, i) => `${i}`.padEnd(256, "ä"));
        await stored(ns, "k", draft("v", { tags }));
        expect(await listAll(ns, "", 10)).toEqual(["k"]);
      });

      it("is not gone on with from a place that another layer or nobody gave", async () => {
        const ns = newNamespace();
        await stored(ns, "k", draft("v"));
        await expect(store.list(ns, "", 10, "elsewhere:k")).rejects.toThrow(ListingInterruptedError);
        const own = { redis: "redis:" }[String(store.layer)];
        if (own !== undefined) await expect(store.list(ns, "", 10, `${own}[nonsense`)).rejects.toThrow("page_token");
      });
    });

    describeFences(
      {
        store: () => store,
        open: () => harness.open(),
        newNamespace,
        draft,
        value,
        now: () => versions.next(),
        heard: (namespace) => harness.heard?.filter((message) => message.includes(`["${namespace}",`)),
      },
      quirks.fences ?? "all keys",
    );

    it("loses none of 200 concurrent guarded increments by several instances", async () => {
      const ns = newNamespace();
      const others = Array.from({ length: 4 }, () => harness.open());
      async function increment(on: CacheStore): Promise<void> {
        for (;;) {
          const { record } = await readOne(ns, "counter", on);
          const seen = record?.version ?? 0;
          versions.observe(seen);
          const next = draft(String(Number(record?.value.data ?? 0) + 1));
          if ((await write(ns, "counter", next, { kind: "version", seen }, on)).stored) return;
        }
      }
      // Many contend for the key, but a few a store: each attempt fails while another succeeds.
      await Promise.all(
        others.map(async (on) => {
          for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 5 }, () => increment(on)));
        }),
      );
      expect(await value(ns, "counter")).toBe("200");
    });

    it("tells other instances what was stored, with the version it was stored under, and no more", async ({ skip }) => {
      if (harness.heard === undefined) skip("no other instance shares this store");
      const ns = newNamespace();
      const first = await stored(ns, "k\n🗝'", draft("1", { tags: ["t'"] }));
      const second = await stored(ns, "k\n🗝'", draft("2", { version: first - 10, tags: ["t'"] }));
      expect(await why(ns, "k\n🗝'", draft("x"), { kind: "version", seen: 0 })).toBe("version");
      const gone = await stored(ns, "k\n🗝'", tombstone(versions.next(), clock.now()));
      const [quiet, drop] = [draft("q"), draft("d")];
      await store.write(ns, [{ key: "quiet", draft: quiet, guard: { kind: "none" }, announce: "no" }]);
      await store.write(ns, [{ key: "dropped", draft: drop, guard: { kind: "none" }, announce: "drop" }]);
      const [byTag, byName] = [versions.next(), versions.next()];
      await store.invalidate(ns, ["t'"], byTag);
      await store.invalidate(ns, [], byName);
      const mine = () => (harness.heard ?? []).filter((message) => message.includes(`["${ns}",`));
      await until(() => mine().length >= 6, { what: "the announcements" });
      const said = mine().map((message) => {
        const [, kind, version, rest] = /^(\w+) (\d+) (.*)$/s.exec(message) ?? [];
        return { kind, version: Number(version), rest: JSON.parse(rest ?? "null") as unknown };
      });
      if (quirks.manyVoices) said.sort((a, b) => a.version - b.version);
      expect(said.slice(0, 4)).toEqual([
        { kind: "set", version: first, rest: [ns, "k\n🗝'"] },
        { kind: "set", version: second, rest: [ns, "k\n🗝'"] },
        { kind: "deleted", version: gone, rest: [ns, "k\n🗝'"] },
        { kind: "drop", version: drop.version, rest: [ns, "dropped"] },
      ]);
      expect(said.slice(4).map(({ kind, rest }) => [kind, rest])).toEqual([
        ["tag", [ns, "t'"]],
        ["namespace", [ns, ""]],
      ]);
      expect(said[4]?.version).toBeGreaterThanOrEqual(byTag);
      expect(said[5]?.version).toBeGreaterThanOrEqual(byName);
    });

    it.each(["text", "damaged header", "other type"] as const)(
      "takes what someone else put in a record's place (%s) for absent, and replaces it",
      async (kind) => {
        if (harness.spoil === undefined) return;
        const ns = newNamespace();
        await stored(ns, "other", draft("v"));
        await harness.spoil(ns, "k", kind);
        expect((await readOne(ns, "k")).record).toBeUndefined();
        expect(await listAll(ns, "", 10)).toEqual(["other"]);
        const first = draft("ours");
        expect(await stored(ns, "k", first, { kind: "version", seen: 0 })).toBe(first.version);
        expect(await value(ns, "k")).toBe("ours");
      },
    );
  });
}
