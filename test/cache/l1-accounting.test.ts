import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { createL1 } from "../../src/cache/l1.ts";
import { createNamespaces } from "../../src/cache/namespace.ts";
import { recordOf } from "../../src/cache/sql-row.ts";
import { POLICY } from "./instance.ts";

const ENTRIES = 10_000;

setFlagsFromString("--expose-gc");
const collect: unknown = runInNewContext("gc");

async function bytesInUse(): Promise<number> {
  if (typeof collect !== "function") throw new Error("the collector cannot be called");
  for (let i = 0; i < 4; i++) {
    collect();
    // What a buffer had is given back a turn after its view is gone.
    await new Promise(setImmediate);
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

interface Shape {
  readonly text: boolean;
  readonly bytes: number;
  readonly character?: string;
  readonly tags?: (i: number) => readonly string[];
}

/** L1 with entries as SQL would hand them over, and what they are counted as beside what they take. */
async function fill({ text, bytes, character = "x", tags = () => [] }: Shape) {
  const l1 = createL1({ maxBytes: 1e12, maxItems: undefined, monotonic: () => 0 });
  const namespace = createNamespaces(() => ({ ...POLICY, l1TtlMs: 60_000 })).get("orders");
  const value = Buffer.from(character.repeat(bytes));
  const before = await bytesInUse();
  for (let i = 0; i < ENTRIES; i++) {
    const key = Buffer.from(`item:${i}`).toString();
    const record = recordOf({
      key,
      version: 1_763_622_000_000_000 + i,
      deleted: 0,
      value: new Uint8Array(value),
      is_text: text ? 1 : 0,
      content_type: "",
      created_at: 1_763_622_000_000 + i,
      expires_at: 1_763_622_900_000 + i,
      stale_until: null,
      stamps: JSON.stringify([1_763_622_000_001, ...tags(i).flatMap((tag) => [tag, 1_763_622_000_002])]),
    });
    const pending = l1.begin(namespace, key);
    l1.put(namespace, key, record, pending);
    l1.end(namespace, key, pending);
  }
  const taken = (await bytesInUse()) - before;
  return { counted: l1.bytes / ENTRIES, taken: taken / ENTRIES };
}

describe("an entry of L1 is counted as what it takes", () => {
  it.each<[string, Shape]>([
    ["10 B of text", { text: true, bytes: 10 }],
    ["100 B of text", { text: true, bytes: 100 }],
    ["1 KiB of text", { text: true, bytes: 1024 }],
    ["10 KiB of text", { text: true, bytes: 10_240 }],
    ["text with characters that take two bytes", { text: true, bytes: 1024, character: "ж" }],
    ["10 raw bytes", { text: false, bytes: 10 }],
    ["100 raw bytes", { text: false, bytes: 100 }],
    ["1 KiB of raw bytes", { text: false, bytes: 1024 }],
    ["10 KiB of raw bytes", { text: false, bytes: 10_240 }],
    ["two tags that others have too", { text: true, bytes: 100, tags: (i) => [`t${i % 10}`, `u${i % 100}`] }],
    ["a tag that no other has", { text: true, bytes: 100, tags: (i) => [`order:${i}`] }],
  ])("%s", async (_, shape) => {
    const { counted, taken } = await fill(shape);
    expect(counted).toBeGreaterThan(taken * 0.97);
    // What malloc needs for the book-keeping of a buffer is counted, but not seen here.
    expect(counted).toBeLessThan(taken * 1.17);
  });
});
