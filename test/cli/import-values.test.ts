import { describe, expect, it } from "vitest";
import { producerFor, sequenceOfEntry, sequenceOfText } from "../../src/cli/import/identity.ts";
import { momentOf } from "../../src/cli/import/values.ts";

describe("a time in a foreign record", () => {
  it.each<[unknown, string]>([
    ["2024-01-02T03:04:05Z", "1704164645"],
    ["2024-01-02 03:04:05", "1704164645"],
    ["2024-01-02T03:04:05.123456", "1704164645.123456"],
    ["2024-01-02T03:04:05.123456789123Z", "1704164645.123456789"],
    ["2024-01-02T03:04:05,5+01:00", "1704161045.5"],
    ["2024-01-02 03:04:05+0530", "1704144845"],
    ["2024-01-02T03:04:05-02", "1704171845"],
    ["2024-01-02 03:04", "1704164640"],
    ["2024-01-02", "1704153600"],
    [" 2024-01-02 03:04:05 UTC ", "1704164645"],
    [1704164645, "1704164645"],
    [1704164645.25, "1704164645.25"],
    ["1704164645.123456", "1704164645.123456"],
    [1704164645123, "1704164645.123"],
    [1704164645123.5, "1704164645.1235"],
    ["1704164645123456", "1704164645.123456"],
    ["1704164645123456789", "1704164645.123456789"],
    [0, "0"],
    [-1, "-1"],
    [-1.25, "-2.75"],
  ])("is understood: %j", (written, expected) => {
    const moment = momentOf(written);
    const [seconds = "", fraction = ""] = expected.split(".");
    expect(moment).toEqual({ seconds: BigInt(seconds), nanos: Number(fraction.padEnd(9, "0")) });
  });

  it.each(["", "soon", "2024-13-01", "2024-01-02T25:00:00", "12:00", "1e400", true, {}, Number.NaN, "1704164645x"])(
    "is not guessed: %j",
    (written) => {
      expect(momentOf(written)).toBeUndefined();
    },
  );
});

describe("the identity of an imported record", () => {
  it("is a sequence that rises with the ids of a stream's entries", () => {
    const ids = ["0-1", "5-0", "5-1", "1700000000000-0", "1700000000000-4095", "1700000000001-0"];
    const sequences = ids.map(sequenceOfEntry);
    expect(sequences).toEqual(sequences.toSorted((one, other) => one - other));
    expect(new Set(sequences).size).toBe(ids.length);
  });

  it("is a sequence that a record can have, also for ids that Redis does not make", () => {
    const ids = ["1700000000000-4096", "18446744073709551615-18446744073709551615", "9007199254740993-0"];
    const sequences = [...ids.map(sequenceOfEntry), ...["", "a", "b"].map(sequenceOfText)];
    for (const sequence of sequences) {
      expect(Number.isSafeInteger(sequence)).toBe(true);
      expect(sequence).toBeGreaterThan(0);
    }
    expect(new Set(sequences).size).toBe(sequences.length);
  });

  it("never changes: what was imported by an earlier version is recognised", () => {
    expect(sequenceOfEntry("1700000000000-7")).toBe(6963200000000007);
    expect(sequenceOfText("a line")).toBe(A_LINE);
    expect(producerFor("audit_queue:stream")).toBe("import.audit_queue:stream");
    expect(producerFor("my audit.db", "log/ü")).toBe("import.my-audit.db.log--");
  });

  it("has a producer that servers accept, and another one for another source, however long their names", () => {
    const [one, other] = [producerFor("a".repeat(300), "b"), producerFor("a".repeat(300), "c")];
    expect(one).toMatch(/^[A-Za-z0-9._:-]{1,128}$/);
    expect(other).not.toBe(one);
  });
});

/** The first 53 bits of its SHA-256. */
const A_LINE = 1_749_588_370_284_910;
