import { setImmediate as nextTurn } from "node:timers/promises";
import { expect } from "vitest";
import type { Order, Outcome } from "../../src/conversation/change/order.ts";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import type { ConversationKey } from "../../src/conversation/record/conversation.ts";
import type { Database } from "../../src/infra/database.ts";
import { append, message, patch, save, state } from "./ledgers.ts";

/** A write that was acknowledged. Times in nanoseconds that all processes of a machine share. */
export interface Act {
  readonly key: ConversationKey;
  /** What it counts under in the state, or the message that it appended. */
  readonly counted: string | undefined;
  readonly appended: { readonly id: string; readonly position: number } | undefined;
  readonly version: number;
  readonly startNs: number;
  readonly endNs: number;
}

/** Who writes, which conversations, and how often. */
export interface Hammering {
  readonly ledger: Ledger;
  readonly name: string;
  readonly keys: readonly ConversationKey[];
  readonly writers: number;
  readonly rounds: number;
  readonly acknowledged: (act: Act) => void;
}

/** The state is a JSON object of counters. */
function counted(before: Uint8Array, name: string): string {
  const counters = JSON.parse(Buffer.from(before).toString() || "{}") as Record<string, number>;
  return JSON.stringify({ ...counters, [name]: (counters[name] ?? 0) + 1 });
}

/** Writers that append, patch, and save what they made of the version they expect, all to the same conversations. */
export async function hammer({ ledger, name, keys, writers, rounds, acknowledged }: Hammering): Promise<void> {
  const now = () => Number(process.hrtime.bigint());
  const carryOut = async (order: Order, act: Pick<Act, "counted" | "appended">): Promise<Outcome> => {
    const startNs = now();
    const outcome = await ledger.carryOut(order);
    if (outcome.kind !== "done") return outcome;
    const appended = outcome.appended[0] ?? act.appended;
    acknowledged({ key: order.key, ...act, appended, version: outcome.held.version, startNs, endNs: now() });
    return outcome;
  };
  const write = async (writer: string, round: number, key: ConversationKey): Promise<void> => {
    const mine = `${writer}-${round % 2}`;
    switch (round % 3) {
      case 0:
        await carryOut(append([message(`${writer}-${round}`)], { key }), { counted: undefined, appended: undefined });
        return;
      case 1: {
        const merge = (before: Uint8Array) => state(counted(before, mine));
        await carryOut(patch("", { key, merge }), { counted: mine, appended: undefined });
        return;
      }
      default:
        // Nothing has this version, so the first answer tells what is there.
        for (let expectedVersion = 1, text = ""; ; ) {
          const order = save(text, { key, expectedVersion });
          const outcome = await carryOut(order, { counted: mine, appended: undefined });
          if (outcome.kind !== "conflict") return;
          const { held, state: current } = outcome.conflict;
          if (held === undefined || current === undefined) throw new Error("the conversation is gone");
          expectedVersion = held.version;
          text = counted(current, mine);
        }
    }
  };
  await Promise.all(
    Array.from({ length: writers }, async (_, at) => {
      const writer = `${name}-${at}`;
      for (let round = 0; round < rounds; round++) {
        await write(writer, round, keys[(at + round) % keys.length] ?? { collection: "conversation", id: "c" });
        await nextTurn();
      }
    }),
  );
}

/** Nothing that was acknowledged is lost, doubled or out of order. `all`: nothing else was written either. */
export async function expectLinear(database: Database, acts: readonly Act[], all: boolean): Promise<void> {
  for (const [id, mine] of Map.groupBy(acts, ({ key }) => key.id)) {
    // As versions say, one after the other; whatever had ended when another began comes before it.
    const inOrder = [...mine].sort((one, other) => one.version - other.version);
    expect(new Set(inOrder.map(({ version }) => version)).size).toBe(inOrder.length);
    let latestStart = 0;
    for (const { startNs, endNs } of inOrder) {
      expect(endNs).toBeGreaterThan(latestStart);
      latestStart = Math.max(latestStart, startNs);
    }

    const messages = await database.query<{ message_id: string; position: number }>(
      "SELECT message_id, position FROM conversation_message WHERE id = $1 ORDER BY position",
      [id],
    );
    expect(messages.map(({ position }) => position)).toEqual(messages.map((_, at) => at + 1));
    const positions = new Map(messages.map((row) => [row.message_id, row.position]));
    expect(positions.size).toBe(messages.length);
    const appended = inOrder.flatMap((act) => act.appended ?? []);
    for (const { id: name, position } of appended) expect([name, positions.get(name)]).toEqual([name, position]);
    const places = appended.map(({ position }) => position);
    expect(places).toEqual([...places].sort((a, b) => a - b));

    const [row] = await database.query<{ state: Uint8Array; message_count: number }>(
      `SELECT s.state, c.message_count FROM conversation c JOIN conversation_state s
        ON s.collection = c.collection AND s.id = c.id AND s.version = c.state_version WHERE c.id = $1`,
      [id],
    );
    const counters = JSON.parse(Buffer.from(row?.state ?? "").toString()) as Record<string, number>;
    const wanted: Record<string, number> = {};
    for (const { counted: name } of mine) if (name !== undefined) wanted[name] = (wanted[name] ?? 0) + 1;
    for (const [name, count] of Object.entries(wanted)) expect(counters[name]).toBeGreaterThanOrEqual(count);
    expect(row?.message_count).toBe(messages.length);

    const told = await database.query<{ version: number; previous_version: number }>(
      "SELECT version, previous_version FROM conversation_change WHERE id = $1 ORDER BY seq",
      [id],
    );
    expect(told.map((change) => change.previous_version)).toEqual([0, ...told.slice(0, -1).map((one) => one.version)]);
    const versions = new Set(told.map(({ version }) => version));
    for (const { version } of mine) expect(versions).toContain(version);
    if (!all) continue;
    expect(counters).toEqual(wanted);
    expect(appended.length).toBe(messages.length);
    // The first was its creation.
    expect(told.length).toBe(mine.length + 1);
  }
}
