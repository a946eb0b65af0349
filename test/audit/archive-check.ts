import { unseal } from "../../src/audit/record/leaf.ts";
import { idOf } from "../../src/audit/record/record.ts";
import type { Database } from "../../src/infra/database.ts";
import { naiveLeafHash, naiveRoot } from "./rfc6962.ts";

type Row = { leaf_index: number; producer: string; sequence: number; leaf_hash: Uint8Array; leaf: Uint8Array | null };

/**
 * What must hold of the archive's tables at any time, computed anew from the records alone: each identity once, leaves without a
 * gap from 0, hashes of what is there, the head, the kept nodes and the largest sequences that follow from it. Says what does not.
 */
export async function unsoundness(database: Database): Promise<readonly string[]> {
  const problems: string[] = [];
  const hashes: Buffer[] = [];
  const seen = new Set<string>();
  const lastSequences = new Map<string, number>();
  const actions = new Set<string>();
  for await (const row of rowsOf(database)) {
    const id = idOf(row);
    if (row.leaf_index !== hashes.length) problems.push(`${id} is leaf ${row.leaf_index}, not ${hashes.length}`);
    if (seen.has(id)) problems.push(`${id} is held twice`);
    seen.add(id);
    if (!row.producer.startsWith("@r.")) {
      lastSequences.set(row.producer, Math.max(row.sequence, lastSequences.get(row.producer) ?? 0));
    }
    hashes.push(Buffer.from(row.leaf_hash));
    if (row.leaf === null) continue;
    const record = unseal(row.leaf);
    actions.add(record.texts.action);
    if (idOf(record) !== id) problems.push(`${id} has the leaf of ${idOf(record)}`);
    if (!naiveLeafHash(row.leaf).equals(row.leaf_hash)) problems.push(`${id} has another hash than its leaf`);
  }
  problems.push(...(await headProblems(database, hashes)), ...(await nodeProblems(database, hashes)));
  const marks = await database.query<{ producer: string; last_sequence: number }>("SELECT * FROM audit_producer");
  const said = new Map(marks.map(({ producer, last_sequence }) => [producer, last_sequence]));
  for (const producer of new Set([...said.keys(), ...lastSequences.keys()])) {
    const [is, says] = [lastSequences.get(producer), said.get(producer)];
    if (is !== says) problems.push(`the largest sequence of ${producer} is ${is}, and is said to be ${says}`);
  }
  const known = await database.query<{ action: string }>("SELECT action FROM audit_action");
  for (const { action } of known) actions.delete(action);
  for (const action of actions) problems.push(`the action ${action} is not known`);
  return problems;
}

async function* rowsOf(database: Database): AsyncGenerator<Row> {
  for (let from = 0; ; ) {
    const rows = await database.query<Row>(
      `SELECT leaf_index, producer, sequence, leaf_hash, leaf FROM audit_record
        WHERE leaf_index >= $1 ORDER BY leaf_index LIMIT 5000`,
      [from],
    );
    yield* rows;
    const last = rows.at(-1);
    if (last === undefined) return;
    from = last.leaf_index + 1;
  }
}

async function headProblems(database: Database, hashes: readonly Buffer[]): Promise<readonly string[]> {
  const [head] = await database.query<{ size: number; frontier: Uint8Array }>("SELECT size, frontier FROM audit_head");
  if (head === undefined) return ["there is no head"];
  if (head.size !== hashes.length) return [`the head says ${head.size} leaves, and there are ${hashes.length}`];
  const subtrees: Buffer[] = [];
  for (let at = 0, rest = head.size; rest > 0; ) {
    const leaves = 2 ** Math.floor(Math.log2(rest));
    subtrees.push(naiveRoot(hashes.slice(at, at + leaves)));
    at += leaves;
    rest -= leaves;
  }
  return Buffer.concat(subtrees).equals(head.frontier) ? [] : ["the frontier is not that of the leaves"];
}

async function nodeProblems(database: Database, hashes: readonly Buffer[]): Promise<readonly string[]> {
  const rows = await database.query<{ level: number; node_index: number; hash: Uint8Array }>(
    "SELECT level, node_index, hash FROM audit_node",
  );
  const kept = new Map(rows.map(({ level, node_index, hash }) => [`${level}/${node_index}`, Buffer.from(hash)]));
  const problems: string[] = [];
  for (let level = 8; 2 ** level <= hashes.length; level += 8) {
    for (let index = 0; (index + 1) * 2 ** level <= hashes.length; index++) {
      const node = `${level}/${index}`;
      const hash = naiveRoot(hashes.slice(index * 2 ** level, (index + 1) * 2 ** level));
      if (kept.get(node)?.equals(hash) !== true) problems.push(`the node ${node} is not kept as it is`);
      kept.delete(node);
    }
  }
  for (const node of kept.keys()) problems.push(`a node ${node} is kept that is not complete`);
  return problems;
}
