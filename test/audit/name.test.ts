import { describe, expect, it } from "vitest";
import { groupOf } from "../../src/audit/groups/subscription-orders.ts";
import { checkProducer } from "../../src/audit/record/draft.ts";
import { parseId } from "../../src/audit/record/record.ts";
import { isProducer } from "../../src/audit/record/record-id.ts";
import { Fields } from "../../src/infra/fields.ts";

/** What is said of a name by whoever reads one. */
function saidOf(name: string) {
  const [asProducer, asGroup] = [new Fields(), new Fields()];
  checkProducer(asProducer, name);
  groupOf(asGroup, "producer", name);
  expect(asProducer.violations).toEqual(asGroup.violations);
  return asProducer.violations;
}

describe("the name of a producer or a group", () => {
  it.each(["a", "billing-7.eu_west:3", "-", "x".repeat(128)])("may be %j, and a record's id then names it", (name) => {
    expect(saidOf(name)).toEqual([]);
    expect(parseId(`${name}/7`)).toEqual({ producer: name, sequence: 7 });
    expect(isProducer(name)).toBe(true);
  });

  it.each(["a b", "a/b", "é", "a\n", "*", "x".repeat(129)])("may not be %j, in the same words everywhere", (name) => {
    expect(saidOf(name)).toMatchObject([{ field: "producer" }]);
    expect(parseId(`${name}/7`)).toBeUndefined();
    expect(isProducer(name)).toBe(false);
  });

  it("begins with @ for producers that the server names, and for nobody else", () => {
    expect(parseId("@review/1")).toEqual({ producer: "@review", sequence: 1 });
    expect(saidOf("@review")).toHaveLength(1);
    expect(parseId("@@review/1")).toBeUndefined();
  });
});
