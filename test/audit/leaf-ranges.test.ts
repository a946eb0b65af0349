import { describe, expect, it } from "vitest";
import { createLeafSet, parseLeaves, rangesOf, showLeaves } from "../../src/audit/retention/leaf-ranges.ts";

describe("ranges of leaves", () => {
  it("are written so that they read as the same again", () => {
    const leaves = [0, 1, 2, 5, 7, 8, 1_000_000_000_000];
    expect(showLeaves(rangesOf(leaves))).toBe("0-2, 5, 7-8, 1000000000000");
    expect(parseLeaves(showLeaves(rangesOf(leaves)))).toEqual(rangesOf(leaves));
    expect(parseLeaves("x, -3, 4-, 6")).toEqual([{ first: 6, end: 7 }]);
  });

  it("are a set of what is in any of them, in whichever order they come, apart or not", () => {
    const set = createLeafSet();
    expect(set.has(0)).toBe(false);
    set.add(parseLeaves("20-29, 3, 5-9"));
    set.add(parseLeaves("25-26, 28-34, 4"));
    const held = () => Array.from({ length: 50 }, (_, leaf) => leaf).filter((leaf) => set.has(leaf));
    expect(showLeaves(rangesOf(held()))).toBe("3-9, 20-34");
    set.add(parseLeaves("0, 40"));
    expect(showLeaves(rangesOf(held()))).toBe("0, 3-9, 20-34, 40");
  });
});
