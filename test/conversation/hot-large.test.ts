import { describe, expect, it } from "vitest";
import type { State } from "../../src/conversation/record/conversation.ts";
import { structOfJsonText } from "../../src/conversation/record/json.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, type HotInstance, keyOf, openTruth, startHot } from "./hot-parts.ts";

const MIB = 1024 * 1024;

function stateOf(bytes: number, letter = "x"): State {
  const text = letter.repeat(bytes);
  return {
    ...{ userId: "u", status: "open", complexityLevel: "", confidenceScore: undefined },
    bytes: structOfJsonText(JSON.stringify({ text })),
  };
}

const save = (one: HotInstance, id: string, state: State) =>
  one.ledger.carryOut({ kind: "save", key: keyOf(id), requestId: "", state, messages: [] });

const headOf = (one: HotInstance, id: string) =>
  until(() => one.copies.readHeld(keyOf(id)), { what: `the head of a copy of ${id}` });

describe("large states", () => {
  it("read by many at once while others write keep no cover from Redis, and open no breaker", async () => {
    await using server = await startRedis();
    const { database } = await openTruth("postgres");
    const one = await startHot({ database, redisUrl: server.url, commandTimeoutMs: 250 });
    await believing(one);
    const ids = Array.from({ length: 30 }, (_, at) => `large-${at}`);
    const state = stateOf(4 * MIB - 1_000);
    for (const id of ids) {
      await save(one, id, state);
      await headOf(one, id);
    }
    const failures = one.breaker.totalFailures;
    let isOver = false;
    const degraded: string[] = [];
    const write = async () => {
      for (let at = 0; !isOver; at++) {
        const { degraded: isDegraded } = await save(one, "small", stateOf(100));
        if (isDegraded) degraded.push(`write ${at}`);
      }
    };
    const writing = write();
    for (let round = 0; round < 2; round++) {
      const found = await Promise.all(ids.map((id) => one.get(id)));
      for (const [at, { what, degraded: isDegraded }] of found.entries()) {
        expect(what?.state?.length).toBe(state.bytes.length);
        if (isDegraded) degraded.push(`read ${round}.${at}`);
      }
    }
    isOver = true;
    await writing;
    expect(degraded).toEqual([]);
    expect(one.breaker.totalFailures).toBe(failures);
    expect(one.breaker.state).toBe("closed");
  });
});
