import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createChurnTable } from "../../src/infra/churn-table.ts";

describe("a table for what comes and goes with each call", () => {
  it("answers as a Map does, whatever the names", () => {
    const name = fc.oneof(fc.string({ maxLength: 40 }), fc.constantFrom("a", "b", "ab", "ba", "x".repeat(500)));
    const step = fc.oneof(
      fc.record({ kind: fc.constant("set" as const), name, value: fc.nat() }),
      fc.record({ kind: fc.constant("delete" as const), name }),
      fc.record({ kind: fc.constant("get" as const), name }),
      fc.record({ kind: fc.constant("clear" as const), name }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const table = createChurnTable<number>();
        const model = new Map<string, number>();
        for (const one of steps) {
          if (one.kind === "set") {
            table.set(one.name, one.value);
            model.set(one.name, one.value);
          } else if (one.kind === "delete") {
            table.delete(one.name);
            model.delete(one.name);
          } else if (one.kind === "clear" && one.name.length === 0) {
            table.clear();
            model.clear();
          }
          expect(table.get(one.name)).toBe(model.get(one.name));
          expect(table.size).toBe(model.size);
        }
      }),
    );
  });

  it("keeps apart names that share a bucket", () => {
    const table = createChurnTable<number>();
    for (let i = 0; i < 20_000; i++) table.set(`key:${i}`, i);
    for (let i = 0; i < 20_000; i += 2) table.delete(`key:${i}`);
    expect(table.size).toBe(10_000);
    for (let i = 0; i < 20_000; i++) expect(table.get(`key:${i}`)).toBe(i % 2 === 0 ? undefined : i);
  });
});
