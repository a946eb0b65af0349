import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Identities, Ranges } from "../../src/audit/journal/held-ranges.ts";

const range = fc
  .tuple(fc.integer({ min: 1, max: 60 }), fc.nat({ max: 8 }))
  .map(([first, more]) => [first, first + more] as const);
const step = fc.record({
  kind: fc.constantFrom("add", "add", "remove", "ask"),
  producer: fc.constantFrom("a", "b", "c"),
  range,
});

describe("sets of identities", () => {
  it("hold what was added and not removed, as few ranges, in whatever order it came", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const identities = new Identities();
        const model = new Set<string>();
        for (const {
          kind,
          producer,
          range: [first, last],
        } of steps) {
          for (let at = first; at <= last; at++) {
            if (kind === "add") model.add(`${producer}/${at}`);
            if (kind === "remove") model.delete(`${producer}/${at}`);
          }
          if (kind === "add") identities.add(producer, first, last);
          else if (kind === "remove") identities.remove(producer, first, last);
          else expect(identities.contains({ producer, sequence: first })).toBe(model.has(`${producer}/${first}`));
        }
        const listed = [...identities.runs()].flatMap(({ producer, first, last }) =>
          Array.from({ length: last - first + 1 }, (_, i) => `${producer}/${first + i}`),
        );
        expect(new Set(listed)).toEqual(model);
        expect(listed.length).toBe(model.size);
        expect(identities.count).toBe(model.size);
        for (const [, ranges] of identities) {
          expect(ranges.length).toBeGreaterThan(0);
          for (const [i, one] of ranges.entries()) {
            expect(one.first).toBeGreaterThan((ranges[i - 1]?.last ?? -1) + 1);
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("are joined, subtracted and compared as sets are", () => {
    const set = fc.array(step, { maxLength: 20 });
    const of = (steps: readonly { producer: string; range: readonly [number, number] }[]) => {
      const identities = new Identities();
      for (const {
        producer,
        range: [first, last],
      } of steps)
        identities.add(producer, first, last);
      return identities;
    };
    const namesOf = (identities: Identities) =>
      new Set(
        [...identities.runs()].flatMap(({ producer, first, last }) =>
          Array.from({ length: last - first + 1 }, (_, i) => `${producer}/${first + i}`),
        ),
      );
    fc.assert(
      fc.property(set, set, (one, other) => {
        const [a, b] = [namesOf(of(one)), namesOf(of(other))];
        const joined = of(one);
        joined.addAll(of(other));
        expect(namesOf(joined)).toEqual(new Set([...a, ...b]));
        const rest = of(one);
        rest.removeAll(of(other));
        expect(namesOf(rest)).toEqual(new Set([...a].filter((one) => !b.has(one))));
        expect(namesOf(of(one).common(of(other)))).toEqual(new Set([...a].filter((one) => b.has(one))));
      }),
      { numRuns: 500 },
    );
  });

  it("do not slow down when a producer counts down, or leaves gaps", () => {
    const ranges = new Ranges();
    for (let sequence = 400_000; sequence > 0; sequence -= 2) ranges.add(sequence, sequence);
    expect(ranges.count).toBe(200_000);
    for (let sequence = 399_999; sequence > 0; sequence -= 2) ranges.add(sequence, sequence);
    expect([...ranges]).toEqual([{ first: 1, last: 400_000 }]);
  });
});
