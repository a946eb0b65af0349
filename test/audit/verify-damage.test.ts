import { describe, expect, it } from "vitest";
import { accountLines } from "../../src/audit/proof/offline-verify-report.ts";
import { hashOfLeaf } from "../support/audit-tree.ts";
import { KINDS } from "./archives.ts";
import { DAY, dropOlderThan, fillAll, SOUND, verify } from "./verify-account.ts";
import { fill, openArchive, statedRecord } from "./verify-archive.ts";

describe.each(KINDS)("the archive in %s, when it was damaged", (kind) => {
  const forged = statedRecord("app", 8, 0, { actor: "user:mallory" }).leaf;
  type Tampering = readonly [what: string, sql: readonly string[], wanted: object];
  const leafSeven = (fault: unknown) => ({ damaged: [{ leafIndex: 7, id: "app/8", fault }] });
  const tamperings: readonly Tampering[] = [
    ["a changed leaf", ["UPDATE audit_record SET leaf = $1 WHERE leaf_index = 7"], leafSeven(/not what was hashed/)],
    [
      "a changed leaf with its hash",
      ["UPDATE audit_record SET leaf = $1, leaf_hash = $2, accept_us = 0, occur_us = 0 WHERE leaf_index = 7"],
      { faults: [/^the hashes of the leaves 0 to 255 do not lead to the one that was kept of them$/] },
    ],
    [
      "swapped rows",
      [
        "UPDATE audit_record SET leaf_index = -1 WHERE leaf_index = 7",
        "UPDATE audit_record SET leaf_index = 7 WHERE leaf_index = 9",
        "UPDATE audit_record SET leaf_index = 9 WHERE leaf_index = -1",
      ],
      { damagedCount: 0, faults: [/^the hashes of the leaves 0 to 255 do not lead to/] },
    ],
    [
      "a deleted row",
      ["DELETE FROM audit_record WHERE leaf_index = 7"],
      { damaged: [{ leafIndex: 7, id: undefined, fault: /missing/ }] },
    ],
    [
      "a deleted row at the end",
      ["DELETE FROM audit_record WHERE leaf_index = 599"],
      { damaged: [{ leafIndex: 599, id: undefined, fault: /missing/ }], faults: [/^leaf 599 is missing$/] },
    ],
    [
      "an end that was cut off with its head",
      [
        "DELETE FROM audit_record WHERE leaf_index >= 512",
        "UPDATE audit_head SET size = 512, frontier = (SELECT hash FROM audit_node WHERE node_index = 1)",
      ],
      { faults: [/^the hashes do not lead to the root of the log's head$/] },
    ],
    [
      "a record made to look dropped",
      [
        `UPDATE audit_record SET leaf = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL, trace_key = NULL, service_key = NULL WHERE leaf_index = 7`,
      ],
      { damagedCount: 0, faults: [/^the record of leaf 7 is gone that no record of retention announces$/] },
    ],
    [
      "records made to look dropped",
      [
        `UPDATE audit_record SET leaf = NULL, review = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL, trace_key = NULL, service_key = NULL
          WHERE leaf_index IN (7, 9, 10, 11, 300)`,
      ],
      {
        damagedCount: 0,
        faults: [/^5 records are gone that no record of retention announces: leaves 7, 9-11, 300$/],
      },
    ],
    [
      "a changed status",
      ["UPDATE audit_record SET status = 3 WHERE leaf_index = 7"],
      leafSeven(/status is APPROVED, but/),
    ],
    [
      "a changed status of a reviewed record",
      ["UPDATE audit_record SET status = 4 WHERE leaf_index = 199"],
      {
        damaged: [
          { leafIndex: 199, id: "app/200", fault: /^its status is REJECTED, but @review\/4 made it APPROVED$/ },
        ],
      },
    ],
    [
      "a review taken back",
      ["UPDATE audit_record SET status = 2, review = NULL WHERE leaf_index = 99"],
      {
        damaged: [{ leafIndex: 99, id: "app/100", fault: /^it does not show the review @review\/1, nor a later one$/ }],
      },
    ],
    [
      "a review of another record",
      [
        "UPDATE audit_record SET status = 3, review = (SELECT review FROM audit_record WHERE leaf_index = 99) WHERE leaf_index = 7",
      ],
      leafSeven(/^the review it shows is not what @review\/1 says$/),
    ],
    [
      "an older review put back",
      [
        "UPDATE audit_record SET status = 3, review = (SELECT review FROM audit_record WHERE leaf_index = 99) WHERE leaf_index = 199",
      ],
      { damaged: [{ leafIndex: 199, id: "app/200", fault: /^the review it shows is not what @review\/1 says$/ }] },
    ],
    [
      "a review that is garbled",
      ["UPDATE audit_record SET status = 3, review = $1 WHERE leaf_index = 7"],
      leafSeven(/^the review it shows cannot be read$/),
    ],
    [
      "a review whose record is gone",
      [
        `UPDATE audit_record SET leaf = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL WHERE producer = '@review' AND sequence = 1`,
      ],
      {
        damaged: [{ leafIndex: 99, id: "app/100", fault: /^it shows the review @review\/1, which is not there$/ }],
        faults: [/^the record of leaf 500 is gone/],
      },
    ],
    [
      "another producer",
      ["UPDATE audit_record SET producer = 'ape' WHERE leaf_index = 7"],
      {
        damaged: [{ leafIndex: 7, id: "ape/8", fault: /^it is filed as ape\/8, and the record says app\/8$/ }],
      },
    ],
    [
      "another sequence",
      ["UPDATE audit_record SET sequence = 9999 WHERE leaf_index = 7"],
      {
        damaged: [{ leafIndex: 7, id: "app/9999", fault: /the record says app\/8$/ }],
      },
    ],
    ["another time", ["UPDATE audit_record SET occur_us = 7 WHERE leaf_index = 7"], leafSeven(/occur_time/)],
    [
      "another time of acceptance",
      ["UPDATE audit_record SET accept_us = 7 WHERE leaf_index = 7"],
      leafSeven(/accept_time/),
    ],
    ["another outcome", ["UPDATE audit_record SET outcome = 3 WHERE leaf_index = 7"], leafSeven(/outcome/)],
    [
      "an actor that is not found",
      ["UPDATE audit_record SET actor_key = 5 WHERE leaf_index = 7"],
      leafSeven(/by its actor$/),
    ],
    [
      "a trace that is not found",
      ["UPDATE audit_record SET trace_key = NULL WHERE leaf_index = 7"],
      leafSeven(/trace id$/),
    ],
    [
      "a changed node",
      ["UPDATE audit_node SET hash = $2 WHERE node_index = 1"],
      { faults: [/^the hashes of the leaves 256 to 511 do not lead/, /^the hashes do not lead to the root/] },
    ],
    [
      "a missing node",
      ["DELETE FROM audit_node WHERE node_index = 1"],
      { faults: [/^the hash that was kept of the leaves 256 to 511 is missing$/, /is missing$/] },
    ],
    [
      "a node too many",
      ["INSERT INTO audit_node (level, node_index, hash) VALUES (8, 2, $2)"],
      { faults: [/^hashes are kept at level 8 where a tree of 600 leaves has none$/] },
    ],
    [
      "a changed head",
      ["UPDATE audit_head SET frontier = $3"],
      { faults: [/^the hashes do not lead to the root of the log's head$/] },
    ],
    ["a head that is gone", ["DELETE FROM audit_head"], { root: undefined, faults: [/^the log has lost its head$/] }],
    [
      "a head that is no head",
      ["UPDATE audit_head SET frontier = $2"],
      { faults: [/^the head of 600 leaves has 32 bytes of hashes/] },
    ],
    [
      "a row behind the end",
      [
        `INSERT INTO audit_record (leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, outcome, status)
          VALUES (600, 'x', 1, $2, 1, 1, 0, 1)`,
      ],
      { faults: [/^there is a record at 600, but the head of the log counts 600 leaves$/] },
    ],
    [
      "a row before the first",
      ["UPDATE audit_record SET leaf_index = -1 WHERE leaf_index = 7"],
      { faults: [/^there is a record at -1, before the first leaf$/], damagedCount: 1 },
    ],
  ];

  it.each(tamperings)("shows %s", async (_, statements, wanted) => {
    await using on = await openArchive(kind);
    await fillAll(on);
    const values = [forged, hashOfLeaf(forged), Buffer.alloc(4 * 32, 7)];
    for (const sql of statements) {
      const numbers = [...new Set([...sql.matchAll(/\$(\d)/g)].map((match) => Number(match[1])))];
      const params = numbers.map((number) => values[number - 1] ?? null);
      const text = sql.replaceAll(/\$(\d)/g, (_whole, digit) => `$${numbers.indexOf(Number(digit)) + 1}`);
      await on.database.write(text, params);
    }
    const account = await verify(on);
    expect(account).toMatchObject({ sound: false, ...matching(wanted) });
    expect(accountLines(account, undefined).at(-1)).toBe("The archive is NOT what it was.");
  });

  it("shows a record that was taken away or put back behind the back of retention, beside what it dropped", async () => {
    await using on = await openArchive(kind);
    await fill(on, 20);
    on.clock.move(3 * DAY);
    await fill(on, 20);
    const keys = ["actor", "action", "resource", "resource_type", "trace", "service"].map((name) => `${name}_key`);
    const columns = ["leaf", "outcome", ...keys];
    const [row] = await on.database.query(`SELECT ${columns.join(", ")} FROM audit_record WHERE leaf_index = 3`);
    await dropOlderThan(on, DAY);
    expect(await verify(on)).toMatchObject({ ...SOUND, retired: 20 });
    await on.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index = 30");
    await on.database.write(
      `UPDATE audit_record SET ${columns.map((name, at) => `${name} = $${at + 1}`).join(", ")} WHERE leaf_index = 3`,
      columns.map((name) => row?.[name] ?? null),
    );
    expect(await verify(on)).toMatchObject({
      sound: false,
      damaged: [{ leafIndex: 3, id: "app/4", fault: "retention says it dropped it, and it is there" }],
      faults: ["the record of leaf 30 is gone that no record of retention announces"],
    });
  });
});

/** Where a pattern stands, a text that matches it. */
function matching(wanted: unknown): object {
  const inner = (value: unknown): unknown => {
    if (value instanceof RegExp) return expect.stringMatching(value);
    if (Array.isArray(value)) return value.map(inner);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, inner(part)]));
  };
  return Object(inner(wanted));
}
