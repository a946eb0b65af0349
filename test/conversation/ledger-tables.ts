import { fromBinary } from "@bufbuild/protobuf";
import { expect } from "vitest";
import { ConversationSummarySchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Database, SqlRow } from "../../src/infra/database.ts";
import type { LedgerModel, ModelRow } from "./ledger-model.ts";

type Row = SqlRow & { id: string };

/** Compares what the tables hold of a collection with the model, down to the last row. */
export async function expectTables(database: Database, collection: string, model: LedgerModel): Promise<void> {
  const all = async <R extends SqlRow>(table: string, order: string) =>
    database.query<R & Row>(`SELECT * FROM ${table} WHERE collection = $1 ORDER BY ${order}`, [collection]);
  const ids = [...model.rows.keys()].sort();

  const held = await all<{ stamp: number; version: number }>("conversation", "id");
  expect(held.map(shownHeld)).toEqual(ids.map((id) => expectedHeld(id, model.rows.get(id))));

  // Each state is the current one or that of a version that is kept, and none of these is missing.
  const versions = await all<VersionRow>("conversation_version", "id, version");
  expect(
    versions.map(({ id, version, kind, restored_version: restored }) => ({ id, version, kind, restored })),
  ).toEqual(
    ids.flatMap((id) =>
      (model.rows.get(id)?.life?.versions ?? [])
        .filter(({ isRecorded }) => isRecorded)
        .map(({ version, kind, restored }) => ({ id, version, kind, restored })),
    ),
  );
  const states = await all<{ version: number; state: Uint8Array }>("conversation_state", "id, version");
  const stateVersions = new Set(
    [...versions, ...held].filter(({ state_version: of }) => of !== 0).map((row) => `${row.id}@${row.state_version}`),
  );
  expect(new Set(states.map(({ id, version }) => `${id}@${version}`))).toEqual(stateVersions);
  const stateAt = new Map(states.map(({ id, version, state }) => [`${id}@${version}`, Buffer.from(state).toString()]));
  const stateVersionAt = new Map(
    [...held, ...versions].map(({ id, version, state_version: of }) => [`${id}@${version}`, of]),
  );

  const messages = await all<MessageRow>("conversation_message", "id, generation, position, added");
  const garbage = await all<{ generation: number }>("conversation_garbage", "id, generation");
  const isGarbage = new Set(garbage.map(({ id, generation }) => `${id}@${generation}`));
  const seen = new Set<MessageRow>();
  for (const id of ids) {
    const life = model.rows.get(id)?.life;
    for (const { version, state, messages: wanted, isRecorded } of life?.versions ?? []) {
      expect(stateAt.get(`${id}@${stateVersionAt.get(`${id}@${version}`)}`)).toBe(state);
      const visible = messages.filter(
        (row) =>
          row.id === id &&
          row.generation === life?.generation &&
          row.added <= version &&
          (row.removed === null || row.removed > version),
      );
      for (const row of visible) seen.add(row);
      expect(visible.map(({ position, message_id: name }) => ({ position, name }))).toEqual(
        wanted.map(({ id: name }, at) => ({ position: at + 1, name })),
      );
      const counted = isRecorded ? versions.find((row) => row.id === id && row.version === version) : undefined;
      if (counted !== undefined) expect(counted.message_count).toBe(wanted.length);
    }
  }
  // What no version shows waits to be removed.
  const orphans = messages.filter((row) => !seen.has(row) && !isGarbage.has(`${row.id}@${row.generation}`));
  expect(orphans).toEqual([]);
  for (const id of ids) expect(isGarbage.has(`${id}@${model.rows.get(id)?.life?.generation}`)).toBe(false);

  await expectChanges(database, collection, model);
  await expectCounts(database, collection);
}

type VersionRow = {
  version: number;
  kind: number;
  restored_version: number;
  state_version: number;
  message_count: number;
};
type MessageRow = Row & {
  generation: number;
  position: number;
  added: number;
  removed: number | null;
  message_id: string;
};

function shownHeld(row: SqlRow): object {
  const { id, stamp, version, presence, message_count: messages, state_bytes: bytes, status } = row;
  return { id, stamp, version, presence, messages, bytes, status, expiresUs: row.expires_us ?? undefined };
}

function expectedHeld(id: string, row: ModelRow | undefined): object {
  const current = row?.life?.versions.at(-1);
  return {
    ...{ id, stamp: row?.stamp, version: current?.version ?? row?.tomb?.version },
    presence: row?.life !== undefined ? 1 : row?.tomb?.presence === "expired" ? 2 : 3,
    ...{ messages: current?.messages.length ?? 0, bytes: Buffer.byteLength(current?.state ?? "") },
    ...{ status: current?.status ?? "", expiresUs: row?.life?.expiresUs },
  };
}

/** Every change is told once, in the order it was made, and seq has no gaps over all collections. */
async function expectChanges(database: Database, collection: string, model: LedgerModel): Promise<void> {
  type ChangeRow = { id: string; summary: Uint8Array } & SqlRow;
  const [log] = await database.query(
    `SELECT COUNT(*) AS count, MAX(seq) AS last, (SELECT seq FROM conversation_head WHERE id = 1) AS head
      FROM conversation_change`,
  );
  expect(log?.last ?? 0).toBe(log?.count);
  expect(log?.head).toBe(log?.count);
  const told = await database.query<ChangeRow>("SELECT * FROM conversation_change WHERE collection = $1 ORDER BY seq", [
    collection,
  ]);
  expect(
    told.map(({ id, kind, version, previous_version: previous, summary }) => {
      const { status } = fromBinary(ConversationSummarySchema, summary);
      return { id, kind, version, previous, status };
    }),
  ).toEqual(model.changes);
}

/** The counts are what counting the rows again gives. */
export async function expectCounts(database: Database, collection: string): Promise<void> {
  const figures = "conversations, messages, state_bytes";
  const counted = await database.query(
    `SELECT presence, status, ${figures} FROM conversation_count
      WHERE collection = $1 AND (conversations <> 0 OR messages <> 0 OR state_bytes <> 0) ORDER BY presence, status`,
    [collection],
  );
  const recounted = await database.query(
    `SELECT presence, status, COUNT(*) AS conversations, SUM(message_count) AS messages, SUM(state_bytes) AS state_bytes
      FROM conversation WHERE collection = $1 GROUP BY presence, status ORDER BY presence, status`,
    [collection],
  );
  expect(counted).toEqual(recounted);
}
