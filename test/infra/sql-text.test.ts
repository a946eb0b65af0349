import { describe, expect, it } from "vitest";
import { toPositional } from "../../src/infra/sql-text.ts";

describe("toPositional", () => {
  it("numbers by position and keeps no order when there is nothing to reorder", () => {
    expect(toPositional("SELECT $1, $2")).toEqual({ sql: "SELECT ?, ?", order: undefined, count: 2 });
  });

  it("remembers which parameter each place wants", () => {
    expect(toPositional("SELECT $2, $1, $2")).toEqual({ sql: "SELECT ?, ?, ?", order: [1, 0, 1], count: 2 });
  });

  it("reads numbers of several digits", () => {
    const places = Array.from({ length: 12 }, (_, index) => `$${index + 1}`).join(", ");
    expect(toPositional(places)).toMatchObject({ order: undefined, count: 12 });
  });

  it.each([
    "SELECT '$1'",
    "SELECT 'it''s $1'",
    'SELECT "$1"',
    'SELECT "a""$1"',
    "SELECT 1 -- $1",
    "SELECT 1 /* $1 \n $2 */",
    "SELECT price$1 FROM t",
  ])("leaves %s as it is", (sql) => {
    expect(toPositional(sql)).toEqual({ sql, order: undefined, count: 0 });
  });

  it("refuses $0", () => {
    expect(() => toPositional("SELECT $0")).toThrow("count from $1");
  });
});
