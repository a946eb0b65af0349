import { describe, expect, it } from "vitest";
import { createL1, type L1Options } from "../../src/cache/l1.ts";
import { createNamespaces } from "../../src/cache/namespace.ts";
import type { CacheRecord } from "../../src/cache/record.ts";
import { movedClock } from "../support/moved-clock.ts";
import { POLICY } from "./instance.ts";

const MINUTE = 60_000;

function setup(options: Partial<L1Options> = {}) {
  const clock = movedClock();
  const namespaces = createNamespaces((name) => ({ ...POLICY, l1TtlMs: name === "unheld" ? 0 : MINUTE }));
  const l1 = createL1({ maxBytes: 1_000_000, maxItems: undefined, monotonic: clock.monotonic, ...options });
  const namespace = namespaces.get("ns");
  let versions = 100;
  const record = (more: Partial<CacheRecord> = {}): CacheRecord => ({
    version: ++versions,
    deleted: false,
    value: { data: "v", contentType: "" },
    createdAt: clock.now(),
    expiresAt: undefined,
    staleUntil: undefined,
    tags: [],
    stamps: [0],
    ...more,
  });
  /** A read or write from its beginning to its end, with what happens in between. */
  function fill(key: string, one: CacheRecord, meanwhile: () => void = () => {}, into = namespace) {
    const pending = l1.begin(into, key);
    meanwhile();
    const held = l1.put(into, key, one, pending);
    l1.end(into, key, pending);
    return held;
  }
  return { clock, namespaces, l1, namespace, record, fill, held: (key: string) => l1.get(namespace, key) };
}

describe("a copy in memory", () => {
  it("is there until a newer version is heard of, and may be served until it is to be checked", () => {
    const { clock, l1, namespace, record, fill, held } = setup();
    const one = record();
    const copy = fill("k", one);
    expect(held("k")).toBe(copy);
    expect(copy && l1.isCurrent(copy)).toBe(true);
    l1.drop(namespace, "k", one.version);
    expect(held("k")).toBe(copy);
    clock.move(MINUTE);
    expect(copy && l1.isCurrent(copy)).toBe(false);
    expect(held("k")).toBe(copy);
    l1.drop(namespace, "k", one.version + 1);
    expect(held("k")).toBeUndefined();
  });

  it("is not made of a record that was overtaken by a message while it was on its way", () => {
    const { l1, namespace, record, fill, held } = setup();
    const [old, young] = [record(), record()];
    expect(fill("k", old, () => l1.drop(namespace, "k", young.version))).toBeUndefined();
    expect(held("k")).toBeUndefined();
    expect(fill("k", young, () => l1.drop(namespace, "k", young.version))).toBeDefined();
  });

  it("does not replace a newer one", () => {
    const { l1, namespace, record, fill, held } = setup();
    const [old, young] = [record(), record()];
    const slow = l1.begin(namespace, "k");
    const copy = fill("k", young);
    expect(l1.put(namespace, "k", old, slow)).toBeUndefined();
    l1.end(namespace, "k", slow);
    expect(held("k")).toBe(copy);
  });

  it("of one's own write gives way to a newer one by another instance, heard of before the write's answer", () => {
    const { l1, namespace, record, fill, held } = setup();
    const [own, theirs] = [record(), record()];
    expect(fill("k", own, () => l1.drop(namespace, "k", theirs.version))).toBeUndefined();
    expect(held("k")).toBeUndefined();
  });

  it("is not made by a read that shares its place with a later one, when both began before the change", () => {
    const { l1, namespace, record, held } = setup();
    const [old, young] = [record(), record()];
    const first = l1.begin(namespace, "k");
    const second = l1.begin(namespace, "k");
    l1.drop(namespace, "k", young.version);
    l1.end(namespace, "k", first);
    expect(l1.put(namespace, "k", old, second)).toBeUndefined();
    l1.end(namespace, "k", second);
    expect(held("k")).toBeUndefined();
  });

  it("remembers changes for a read under way across an invalidation and the reads after it", () => {
    const { l1, namespace, record, held } = setup();
    const [old, young] = [record(), record()];
    const before = l1.begin(namespace, "k");
    l1.drop(namespace, "k", young.version);
    l1.dropNamespace(namespace);
    const after = l1.begin(namespace, "k");
    expect(l1.put(namespace, "k", young, before)).toBeUndefined();
    expect(l1.put(namespace, "k", old, after)).toBeUndefined();
    expect(l1.put(namespace, "k", young, after)).toBeDefined();
    l1.end(namespace, "k", before);
    l1.end(namespace, "k", after);
    expect(held("k")?.record).toEqual(young);
  });

  it("is not made when a change came while two reads overlapped that an invalidation set apart", () => {
    const { l1, namespace, record, held } = setup();
    const [old, young] = [record(), record()];
    const before = l1.begin(namespace, "k");
    l1.dropNamespace(namespace);
    const after = l1.begin(namespace, "k");
    l1.drop(namespace, "k", young.version);
    l1.end(namespace, "k", before);
    expect(l1.put(namespace, "k", old, after)).toBeUndefined();
    l1.end(namespace, "k", after);
    expect(held("k")).toBeUndefined();
  });

  it("is not made of a tombstone, nor where the policy wants none", () => {
    const { namespaces, record, fill } = setup();
    expect(fill("k", record({ deleted: true }))).toBeUndefined();
    expect(fill("k", record(), undefined, namespaces.get("unheld"))).toBeUndefined();
  });

  it("does not keep alive the larger buffer that its bytes arrived in", () => {
    const { record, fill } = setup();
    const data = new Uint8Array(1_000_000).subarray(0, 10);
    const copy = fill("k", record({ value: { data, contentType: "" } }));
    const kept = copy?.record.value.data;
    if (!(kept instanceof Uint8Array)) throw new Error("no bytes");
    expect(Uint8Array.from(kept)).toEqual(Uint8Array.from(data));
    expect(kept.buffer.byteLength).toBeLessThan(100_000);
  });
});

describe("an invalidation in memory", () => {
  it("of a tag ends every copy that carries it, and none of another namespace", () => {
    const { l1, namespaces, namespace, record, fill, held } = setup();
    const other = namespaces.get("other");
    fill("a", record({ tags: ["x", "t"], stamps: [0, 0, 0] }));
    fill("b", record({ tags: ["x"], stamps: [0, 0] }));
    fill("a", record({ tags: ["t"], stamps: [0, 0] }), undefined, other);
    l1.dropTag(namespace, "t");
    expect(held("a")).toBeUndefined();
    expect(held("b")).toBeDefined();
    expect(l1.get(other, "a")).toBeDefined();
    expect(fill("a", record({ tags: ["t"], stamps: [0, 0] }))).toBeDefined();
    expect(held("a")).toBeDefined();
  });

  it("of a namespace ends every copy in it", () => {
    const { l1, namespace, record, fill, held } = setup();
    fill("a", record());
    l1.dropNamespace(namespace);
    expect(held("a")).toBeUndefined();
    fill("a", record());
    expect(held("a")).toBeDefined();
  });

  it.each(["tag", "namespace"])("of a %s keeps out what was on its way", (what) => {
    const { l1, namespace, record, fill, held } = setup();
    const invalidate = () => (what === "tag" ? l1.dropTag(namespace, "t") : l1.dropNamespace(namespace));
    expect(fill("k", record({ tags: ["t"], stamps: [0, 0] }), invalidate)).toBeUndefined();
    expect(held("k")).toBeUndefined();
  });

  it("forgets a tag that no copy carries any more", () => {
    const { l1, namespace, record, fill } = setup();
    for (let i = 0; i < 100; i++) fill("k", record({ tags: [`t${i}`], stamps: [0, 0] }));
    expect([...namespace.tags.keys()]).toEqual(["t99"]);
    l1.dropTag(namespace, "t99");
    expect(l1.get(namespace, "k")).toBeUndefined();
    expect(namespace.tags.size).toBe(0);
  });
});

describe("after a gap in what is heard of others", () => {
  it("every copy is suspect, until it was read anew", () => {
    const { l1, record, fill, held } = setup();
    const one = record();
    const before = fill("k", one);
    l1.suspectAll();
    expect(before && l1.isCurrent(before)).toBe(false);
    expect(held("k")).toBe(before);
    const again = fill("k", one);
    expect(again && l1.isCurrent(again)).toBe(true);
  });

  it("what was on its way when it happened is suspect from the start", () => {
    const { l1, record, fill } = setup();
    const copy = fill("k", record(), () => l1.suspectAll());
    expect(copy && l1.isCurrent(copy)).toBe(false);
  });
});

describe("memory's bounds", () => {
  it("are kept in bytes, whatever the sizes, and counted per namespace", () => {
    const { l1, namespace, record, fill, held } = setup({ maxBytes: 100_000 });
    for (let i = 0; i < 500; i++) {
      fill(`k${i}`, record({ value: { data: "x".repeat((i * 37) % 3_000), contentType: "text/plain" } }));
      expect(l1.bytes).toBeLessThanOrEqual(100_000);
      expect(namespace.counters.l1Bytes).toBe(l1.bytes);
    }
    expect(namespace.counters.l1Entries).toBeGreaterThan(10);
    expect(namespace.counters.l1Evictions).toBe(500 - namespace.counters.l1Entries);
    expect(held("k499")).toBeDefined();
    expect(held("k0")).toBeUndefined();
  });

  it("do not let in what is larger than all of it, and do not empty it for that", () => {
    const { record, fill, held } = setup({ maxBytes: 10_000 });
    fill("small", record());
    expect(fill("large", record({ value: { data: new Uint8Array(10_000), contentType: "" } }))).toBeUndefined();
    expect(held("small")).toBeDefined();
  });

  it.each<Partial<L1Options>>([{ maxBytes: 10_000 }, { maxItems: 3 }])(
    "are kept without evicting when that is asked for: %j",
    (bounds) => {
      const { l1, namespace, record } = setup(bounds);
      const value = { data: "x".repeat(2_500), contentType: "" };
      const fillRoom = (key: string) => {
        const one = record({ value });
        const pending = l1.begin(namespace, key);
        const hadRoom = l1.hasRoomFor(namespace, key, one);
        const copy = l1.put(namespace, key, one, pending, false);
        l1.end(namespace, key, pending);
        expect(copy !== undefined).toBe(hadRoom);
        return hadRoom;
      };
      expect(["a", "b", "c", "d", "e"].filter(fillRoom)).toEqual(["a", "b", "c"]);
      // In place of its own older copy there is room.
      expect(fillRoom("b")).toBe(true);
      expect(l1.entries).toBe(3);
      expect(namespace.counters.l1Evictions).toBe(0);
    },
  );

  it("are kept in items, too", () => {
    const { namespace, record, fill, held } = setup({ maxItems: 3 });
    for (const key of ["a", "b", "c"]) fill(key, record());
    held("a");
    fill("d", record());
    expect(["a", "b", "c", "d"].filter((key) => held(key))).toEqual(["a", "c", "d"]);
    expect(namespace.counters.l1Entries).toBe(3);
    expect(namespace.counters.l1Evictions).toBe(1);
  });

  it("leave no trace of reads that are over", () => {
    const { l1, namespace, record } = setup();
    const one = record();
    const first = l1.begin(namespace, "k");
    l1.drop(namespace, "k", one.version + 5);
    l1.end(namespace, "k", first);
    // A read that began later knows nothing of what the earlier one heard: what it reads is newer anyway.
    const second = l1.begin(namespace, "k");
    expect(second.floor).toBe(0);
    l1.end(namespace, "k", second);
  });
});
