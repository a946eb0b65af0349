import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { createLines, type Lines } from "../../src/lock/wait/lines.ts";
import { callerOf } from "../../src/lock/wait/visitor.ts";
import { until } from "../support/until.ts";
import { openSqlAuthorities, takeOrder } from "./authorities.ts";

describe.each(["sqlite", "postgres"] as const)("waiting for a lock that %s decides about", (kind) => {
  it("serves those who wait in the order they came", async () => {
    await using open = await openSqlAuthorities(kind);
    const lines = linesOver(open.instances[0].authority);
    const first = await acquired(lines, "nightly");
    const served: number[] = [];
    const waits = [1, 2, 3].map(async (number) => {
      const grant = await acquired(lines, "nightly");
      served.push(number);
      await release(open.instances[0].authority, lines, grant);
    });
    await until(() => lines.waiters("nightly") === 3, { what: "three wait" });
    await release(open.instances[0].authority, lines, first);
    await Promise.all(waits);
    expect(served).toEqual([1, 2, 3]);
    expect(lines.waiting).toBe(0);
  });

  it("takes who hangs up out of the line at once", async () => {
    await using open = await openSqlAuthorities(kind);
    const lines = linesOver(open.instances[0].authority);
    const first = await acquired(lines, "nightly");
    const caller = new AbortController();
    const place = lines.wait({ order: takeOrder("nightly"), waitMs: undefined, caller: callerOf(caller.signal) });
    caller.abort(new Error("hung up"));
    await expect(place.turn).rejects.toThrow("hung up");
    const next = acquired(lines, "nightly");
    await release(open.instances[0].authority, lines, first);
    expect((await next).token).toBeGreaterThan(first.token);
  });

  it("tells a caller who does not wait who holds it", async () => {
    await using open = await openSqlAuthorities(kind);
    const lines = linesOver(open.instances[0].authority);
    const first = await acquired(lines, "nightly");
    const turn = await lines.wait({ order: takeOrder("nightly"), waitMs: 0, caller: patient }).turn;
    expect(turn).toMatchObject({ kind: "held", holder: { grant: { token: first.token, owner: first.owner } } });
  });
});

const patient = callerOf(new AbortController().signal);

type Authority = Parameters<typeof createLines>[0]["authority"];

function linesOver(authority: Authority): Lines {
  return createLines({ authority, clock: systemClock, log: createLog({ level: "silent" }), mostWaiting: 100 });
}

async function acquired(lines: Lines, name: string) {
  const order = takeOrder(name, { waits: true });
  const turn = await lines.wait({ order, waitMs: undefined, caller: patient }).turn;
  if (turn.kind !== "acquired") throw new Error("not acquired");
  return turn.lease.grant;
}

async function release(authority: Authority, lines: Lines, { name, token }: { name: string; token: number }) {
  const order = { name, token, end: "released", streamId: undefined, undo: false } as const;
  expect((await authority.release(order)).released).toBe(true);
  lines.ring(name);
}
