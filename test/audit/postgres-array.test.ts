import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { bigintArray, byteaArray, textArray } from "../../src/infra/postgres-array.ts";
import { freshDatabase } from "../support/fresh.ts";

const MOST = Number.MAX_SAFE_INTEGER;

let database: Database;
beforeAll(async () => {
  const timeouts = { statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 };
  database = openPostgres({ url: await freshDatabase(), poolSize: 2, ...timeouts });
});
afterAll(() => database.close());

/** What the server takes the array for, element by element, as text of its own making. */
async function elements(type: "bigint" | "text" | "bytea", array: Uint8Array): Promise<(string | null)[]> {
  const rows = await database.query<{ said: string | null }>(
    `SELECT ${type === "bytea" ? "encode(value, 'hex')" : "value::text"} AS said
      FROM unnest($1::${type}[]) WITH ORDINALITY AS one (value, at) ORDER BY at`,
    [array],
  );
  return rows.map(({ said }) => said);
}

const integers = (values: readonly (number | null | undefined)[]) => elements("bigint", bigintArray(values));
const texts = (values: readonly string[]) => elements("text", textArray(values));
const binaries = (values: readonly (Uint8Array | null)[]) => elements("bytea", byteaArray(values));
const hex = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value).toString("hex"));

describe("arrays in the binary form of Postgres", () => {
  it("hold integers as far as numbers are exact, negative ones and nulls", async () => {
    const values = [0, 1, -1, 255, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 52, MOST];
    const all = [...values, ...values.map((value) => -value), -(2 ** 31) - 1, -(2 ** 32) - 1];
    expect(await integers(all)).toEqual(all.map((value) => String(value === 0 ? 0 : value)));
    expect(await integers([null, 7, undefined, -7, null])).toEqual([null, "7", null, "-7", null]);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(fc.maxSafeInteger()), { maxLength: 50 }), async (some) => {
        expect(await integers(some)).toEqual(some.map((value) => (value === null ? null : String(value))));
      }),
      { numRuns: 60 },
    );
  });

  it("hold texts of any script and length, with whatever would have to be quoted", async () => {
    const odd = [
      "",
      "NULL",
      "null",
      "{}",
      '"',
      "\\",
      "a,b",
      "{a,b}",
      "'",
      " x ",
      "\n\t\r",
      "\u{1}",
      "é",
      "e\u0301",
      "🍐",
      "𝒳",
      "\u{10ffff}",
    ];
    expect(await texts(odd)).toEqual(odd);
    const long = "päron 🍐".repeat(20_000);
    expect(await texts([long, "after it"])).toEqual([long, "after it"]);
    const unicode = fc.string({ unit: "binary", maxLength: 40 }).map((text) => text.replaceAll("\0", ""));
    await fc.assert(
      fc.asyncProperty(fc.array(unicode, { maxLength: 30 }), async (some) => {
        expect(await texts(some)).toEqual(some);
      }),
      { numRuns: 60 },
    );
  });

  it("hold bytes of any value, parts of larger buffers and nulls", async () => {
    const every = Uint8Array.from({ length: 256 }, (_, at) => at);
    const part = every.subarray(100, 120);
    const values = [every, null, new Uint8Array(), part, Buffer.from("leaf"), new Uint8Array(300_000).fill(0xfe)];
    expect(await binaries(values)).toEqual(values.map(hex));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(fc.uint8Array({ maxLength: 60 })), { maxLength: 30 }), async (some) => {
        expect(await binaries(some)).toEqual(some.map(hex));
      }),
      { numRuns: 60 },
    );
  });

  it("may be empty, or have one element, or very many", async () => {
    expect([await integers([]), await texts([]), await binaries([])]).toEqual([[], [], []]);
    expect([await integers([3]), await texts(["x"]), await binaries([Buffer.of(3)])]).toEqual([["3"], ["x"], ["03"]]);
    const many = Array.from({ length: 20_000 }, (_, at) => at * 3_000_000_007 - 30_000_000_000_000);
    expect(await integers(many)).toEqual(many.map(String));
  });

  it("begin at 1 and count on, as arrays of SQL do, and find with ANY what is in them", async () => {
    const [row] = await database.query(
      `SELECT ($1::bigint[])[1] AS first, ($1::bigint[])[2] AS second, array_ndims($1::bigint[]) AS dimensions,
        'b' = ANY ($2::text[]) AS found, 'c' = ANY ($2::text[]) AS missed`,
      [bigintArray([MOST, -MOST]), textArray(["a", "b"])],
    );
    expect(row).toMatchObject({ first: MOST, second: -MOST, dimensions: 1, found: 1, missed: 0 });
    expect(await database.query("SELECT 1 AS one WHERE 'a' = ANY ($1::text[])", [textArray([])])).toEqual([]);
  });

  it("go side by side into one statement, null by null", async () => {
    const rows = await database.query(
      "SELECT a, b, c FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS row (a, b, c)",
      [bigintArray([1, null]), textArray(["x", "y"]), byteaArray([null, Buffer.of(0, 255)])],
    );
    expect(rows).toMatchObject([
      { a: 1, b: "x", c: null },
      { a: null, b: "y" },
    ]);
    expect(rows[1]?.c).toEqual(Buffer.of(0, 255));
  });
});
