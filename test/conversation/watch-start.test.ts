import { describe, expect, it } from "vitest";
import type { Changes } from "../../src/conversation/watch/changes.ts";
import { createSqlChanges } from "../../src/conversation/watch/sql-changes.ts";
import { pruneChanges } from "../../src/conversation/watch/sql-prune.ts";
import { begin, GAP } from "../../src/conversation/watch/start.ts";
import { done, KEY, KINDS, remove, save } from "./ledgers.ts";
import { openWatches, structState, type WatchInstances } from "./watch-parts.ts";

const SCOPE = { ...KEY, filter: undefined };
const OTHER = { ...KEY, id: "other" };

/** Three lives of a conversation, with changes of another between its own, each in another microsecond. */
async function live({ first, clock }: WatchInstances): Promise<readonly number[]> {
  const versions: number[] = [];
  const lives = [
    ["save", "save", "delete"],
    ["save", "delete"],
    ["save", "save", "save", "save"],
  ] as const;
  for (const steps of lives) {
    for (const [at, step] of steps.entries()) {
      await done(first, save("", { key: OTHER, state: structState() }));
      clock.move(1);
      const state = { state: structState(), ...(at === 0 && { expectedVersion: 0 }) };
      const { held } = await done(first, step === "save" ? save("", state) : remove());
      versions.push(held.version);
    }
  }
  return versions;
}

type Row = { seq: number; kind: number; version: number; previous_version: number };

/** Where a watch begins, found by looking at all that is kept. */
function expectedStart(rows: readonly Row[], version: number, latest: number): number {
  const [oldest] = rows;
  if (oldest === undefined) return version === latest ? Number.NaN : GAP;
  if (version === 0) {
    const first = oldest.kind === 1 ? oldest : rows.findLast(({ kind }) => kind === 1);
    return first === undefined ? GAP : first.seq;
  }
  const next = rows.find((row) => row.version > version);
  if (next === undefined) return Number.NaN;
  const isWhole = next !== oldest || (next.previous_version > 0 && next.previous_version <= version);
  return isWhole ? next.seq : GAP;
}

describe.each(KINDS)("where a watch over %s begins after a version", (kind) => {
  it("is before the next change, as long as none was forgotten in between", async () => {
    await using open = await openWatches(kind);
    const { database } = open.first;
    const changes = createSqlChanges(database);
    const versions = await live(open);
    const latest = versions.at(-1) ?? 0;
    const asked = [0, 1, ...versions.flatMap((version) => [version - 1, version, version + 1])].filter(
      (version) => version <= latest,
    );
    for (let forgotten = 0; forgotten <= 2 * versions.length; forgotten++) {
      const rows = await database.query<Row>(
        "SELECT seq, kind, version, previous_version FROM conversation_change WHERE id = $1 ORDER BY seq",
        [KEY.id],
      );
      const beyond = begin(changes, SCOPE, { version: latest + 1 });
      await expect(beyond).rejects.toMatchObject({
        ...{ kind: "precondition", reason: "VERSION_NOT_REACHED" },
        metadata: { field: "after_version", ...KEY, version: String(latest) },
      });
      for (const version of asked) {
        const { at, head } = await begin(changes, SCOPE, { version });
        const expected = expectedStart(rows, version, latest);
        // Any place between two changes of the conversation is as good as another.
        const next = rows.find(({ seq }) => seq > at)?.seq ?? Number.NaN;
        expect([forgotten, version, at === GAP ? GAP : next]).toEqual([forgotten, version, expected]);
        expect(head).toBe(2 * versions.length);
      }
      await pruneChanges(database, Number.MAX_SAFE_INTEGER, 1);
    }
  });

  it("is found in a few steps, and never past what was forgotten meanwhile", async () => {
    await using open = await openWatches(kind);
    const { database } = open.first;
    const versions: number[] = [];
    for (let more = 0; more < 100; more++) {
      versions.push((await done(open.first, save("", { state: structState() }))).held.version);
      open.clock.move(1);
    }
    const changes = createSqlChanges(database);
    let steps = 0;
    let forgets = Number.POSITIVE_INFINITY;
    const forgetful: Changes = {
      ...changes,
      async markFrom(key, seq) {
        if (++steps === forgets) await pruneChanges(database, Number.MAX_SAFE_INTEGER, 60);
        return changes.markFrom(key, seq);
      },
    };
    const start = { version: versions[49] ?? 0 };
    expect((await begin(forgetful, SCOPE, start)).at).toBe(50);
    expect(steps).toBeLessThan(12);
    forgets = steps;
    steps = 0;
    expect((await begin(forgetful, SCOPE, start)).at).toBe(GAP);
    const opening = await changes.opening(KEY.collection, KEY.id);
    expect(await begin(changes, SCOPE, "now")).toMatchObject({ ...opening, at: 100 });
    const { log } = opening;
    expect((await begin(changes, SCOPE, { log, place: 100 })).at).toBe(100);
    for (const foreign of [
      { log, place: 101 },
      { log: log + 1, place: 1 },
    ]) {
      await expect(begin(changes, SCOPE, foreign)).rejects.toMatchObject({ violations: [{ field: "resume_token" }] });
    }
  });
});
