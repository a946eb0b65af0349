import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Order } from "../../src/conversation/change/order.ts";
import type { Message } from "../../src/conversation/record/conversation.ts";
import type { Database } from "../../src/infra/database.ts";
import { type Ending, endingOf, endingOfFailure, LedgerModel } from "./ledger-model.ts";
import { expectTables } from "./ledger-tables.ts";
import { DEFAULT_POLICY, KINDS, message, type OpenLedgers, openLedgers, state } from "./ledgers.ts";

const RUNS = { sqlite: 120, postgres: 24 } as const;

const text = fc.constantFrom("x", "yy", "");
const status = fc.constantFrom("", "open", "done");
const messages = fc.uniqueArray(
  fc.record({ id: fc.constantFrom("m1", "m2", "m3", "m4", "m5"), content: fc.constantFrom("hi", "hi", "hi", "other") }),
  { maxLength: 3, selector: ({ id }) => id },
);
/** Which version it names: none, that it must not be there, the current one, or another. */
const expected = fc.constantFrom("none", "none", "none", "zero", "current", "other");
const requestId = fc.constantFrom("", "", "", "r1", "r2");
const expiry = fc.option(
  fc.record({
    ttlMs: fc.constantFrom<(number | "never" | undefined)[]>(undefined, "never", 300, 2_000),
    sliding: fc.constantFrom<(boolean | undefined)[]>(undefined, true, false),
  }),
  { nil: undefined, freq: 3 },
);
const common = { id: fc.constantFrom("a", "a", "b", "c/d"), expected, requestId, answersState: fc.boolean(), expiry };
const plain = {
  ...{ id: fc.constant("a"), expected: fc.constant("none"), requestId: fc.constant("") },
  ...{ answersState: fc.constant(false), expiry: fc.constant(undefined) },
};

const save = (base: typeof common) => fc.record({ kind: fc.constant("save"), ...base, text, status, messages });
const append = (base: typeof common) =>
  fc.record({
    ...{ kind: fc.constant("append"), ...base, text, status, messages },
    ...{ create: fc.constantFrom(true, true, false), patches: fc.boolean() },
  });
const restore = (base: typeof common, back = fc.nat(4), keepMessages = fc.boolean()) =>
  fc.record({ kind: fc.constant("restore"), ...base, back, keepMessages });
const mere = (kind: string, base: typeof common) => fc.record({ kind: fc.constant(kind), ...base });

const anything = fc.oneof(
  { weight: 4, arbitrary: save(common) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("patch"), ...common, text, status }) },
  { weight: 5, arbitrary: append(common) },
  { weight: 1, arbitrary: mere("delete", common) },
  { weight: 1, arbitrary: mere("extend", common) },
  { weight: 1, arbitrary: mere("expire", common) },
  { weight: 2, arbitrary: restore(common) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("adopt"), ...common, text, status, messages }) },
);
/** Of one conversation, whose messages come and go. */
const toAndFro = fc.oneof(
  { weight: 1, arbitrary: save({ ...plain, expected: fc.constantFrom("none", "zero") }) },
  { weight: 5, arbitrary: append({ ...plain, expected: fc.constantFrom("none", "current") }) },
  { weight: 6, arbitrary: restore(plain, fc.integer({ min: 1, max: 3 }), fc.constantFrom(false, false, false, true)) },
  { weight: 1, arbitrary: mere("delete", plain) },
);
type Wish = typeof anything extends fc.Arbitrary<infer T> ? T : never;
interface Batch {
  readonly moveMs: number;
  readonly history: number | undefined;
  readonly wishes: readonly Wish[];
}
const history = fc.option(fc.constantFrom(0, 1, 3), { nil: undefined });
const varied: fc.Arbitrary<readonly Batch[]> = fc.array(
  fc.record({
    ...{ moveMs: fc.constantFrom(0, 0, 0, 1, 299, 300, 1_000, 3_000, -500, 600_000), history },
    wishes: fc.array(anything, { minLength: 1, maxLength: 6 }),
  }),
  { minLength: 1, maxLength: 15 },
);
const restoring: fc.Arbitrary<readonly Batch[]> = fc.array(
  fc.record({
    ...{ moveMs: fc.constantFrom(0, 0, 1, -1), history: fc.constantFrom(3, 3, 3, 3, 2, 1, 0) },
    wishes: fc.array(toAndFro, { minLength: 1, maxLength: 6 }),
  }),
  { minLength: 10, maxLength: 12 },
);

let collections = 0;
let generations = 0;

async function expectSame(open: OpenLedgers, batches: readonly Batch[]) {
  const [{ ledger, database }] = open.instances;
  const collection = `run-${++collections}`;
  const model = new LedgerModel({ ...DEFAULT_POLICY, ttlMs: 1_000, tombstoneMs: 1_000, history: 2 });
  for (const { moveMs, history, wishes } of batches) {
    open.clock.move(moveMs);
    model.nowUs = open.clock.now() * 1000;
    if (history !== undefined) model.policy = { ...model.policy, history };
    open.policies.set(collection, model.policy);
    for (const one of wishes) if (one.kind === "adopt") await prepare(database, model, collection, one);
    // Each is told what it expects when its turn has come in the model; the ledger gets all of them at once.
    const endings: Ending[] = [];
    const answers = wishes.map((one) => {
      const order = orderOf(one, collection, model);
      endings.push(model.carryOut(order));
      return ledger.carryOut(order).then(endingOf, endingOfFailure);
    });
    expect(await Promise.all(answers)).toEqual(endings);
    await expectTables(database, collection, model);
  }
}

const generationOf = new WeakMap<object, number>();

/** Puts messages where an order to adopt finds them. */
async function prepare(database: Database, model: LedgerModel, collection: string, wanted: Wish): Promise<void> {
  if (wanted.kind !== "adopt" || !("messages" in wanted)) return;
  const generation = ++generations;
  generationOf.set(wanted, generation);
  const given = messagesOf(wanted.messages);
  model.prepared.set(generation, given);
  const dueUs = model.nowUs + 3_600_000_000;
  await database.writeAll([
    {
      sql: "INSERT INTO conversation_garbage (collection, id, generation, due_us) VALUES ($1, $2, $3, $4)",
      params: [collection, wanted.id, generation, dueUs],
    },
    ...given.map(({ id, role, contentHash, body }, at) => ({
      sql: `INSERT INTO conversation_message
        (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
        VALUES ($1, $2, $3, $4, $3, NULL, $5, $6, $7, $8)`,
      params: [collection, wanted.id, generation, at + 1, id, role, contentHash, body],
    })),
  ]);
}

function messagesOf(given: readonly { id: string; content: string }[]): Message[] {
  return given.map(({ id, content }) => message(id, content));
}

function orderOf(wanted: Wish, collection: string, model: LedgerModel): Order {
  const { id, answersState, expiry } = wanted;
  const isNamed = !["delete", "extend", "expire"].includes(wanted.kind);
  const requestId = isNamed ? wanted.requestId : "";
  const current = model.presence(id) === "live" ? (model.current(id)?.version ?? 0) : 0;
  const versions = { none: undefined, zero: 0, current, other: current + 1 };
  const expectedVersion = versions[wanted.expected];
  const named = requestId === "" ? undefined : { id: requestId, meaning: wanted.kind };
  const base = { key: { collection, id }, requestId, named, answersState, expectedVersion };
  const merge = (before: Uint8Array) =>
    state(
      Buffer.from(before).toString() + ("text" in wanted ? wanted.text : ""),
      "status" in wanted ? wanted.status : "",
    );
  switch (wanted.kind) {
    case "save":
      return { ...base, kind: "save", state: merge(Buffer.alloc(0)), messages: given(wanted), expiry };
    case "patch":
      return { ...base, kind: "patch", merge, expiry };
    case "append":
      return {
        ...{ ...base, kind: "append", messages: given(wanted), create: "create" in wanted && wanted.create, expiry },
        merge: "patches" in wanted && wanted.patches ? merge : undefined,
      };
    case "extend":
      return { ...base, kind: "extend", expiry: expiry ?? { ttlMs: undefined, sliding: undefined } };
    case "restore": {
      const versions = model.rows.get(id)?.life?.versions ?? [];
      const version = versions.at(-1 - ("back" in wanted ? wanted.back : 0))?.version ?? 1;
      return { ...base, kind: "restore", version, keepMessages: "keepMessages" in wanted && wanted.keepMessages };
    }
    case "adopt":
      return {
        ...{ ...base, kind: "adopt", state: merge(Buffer.alloc(0)), messageCount: given(wanted).length, expiry },
        ...{ origin: undefined, generation: generationOf.get(wanted) ?? 0 },
      };
    case "delete":
      return { ...base, kind: "delete" };
    default:
      return { ...base, kind: "expire" };
  }
}

function given(wanted: Wish): Message[] {
  return "messages" in wanted ? messagesOf(wanted.messages) : [];
}

describe.each(KINDS)("the ledger in %s", (kind) => {
  it("does what the model does, and leaves the rows that it should, whatever is ordered", async () => {
    await using open = await openLedgers(kind);
    const property = fc.asyncProperty(varied, (batches) => expectSame(open, batches));
    await fc.assert(property, { numRuns: RUNS[kind] });
  });

  it("restores messages as the model does, to and fro", async () => {
    await using open = await openLedgers(kind);
    const property = fc.asyncProperty(restoring, (batches) => expectSame(open, batches));
    await fc.assert(property, { numRuns: RUNS[kind] / 2 });
  });
});
