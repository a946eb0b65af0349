import { describe, expect, it, onTestFinished } from "vitest";
import type { Claimed, Groups } from "../../src/audit/groups/groups.ts";
import { createHeld } from "../../src/audit/groups/subscription-held.ts";
import type { Subscription } from "../../src/audit/groups/subscription-orders.ts";
import { createSource, type Source } from "../../src/audit/groups/subscription-source.ts";
import { createBell } from "../../src/infra/bell.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { until } from "../support/until.ts";
import { KINDS } from "./archives.ts";
import { claimOrder, member, openGroups, refsOf, sequencesOf } from "./group-instances.ts";

async function setup(kind: (typeof KINDS)[number], edit: (groups: Groups) => Groups = (groups) => groups) {
  const open = await openGroups(kind);
  onTestFinished(() => open[Symbol.asyncDispose]());
  const { clock } = open;
  const groups = edit(open.first.groups);
  const join = { ...member("g", "a"), start: "new" as const, filter: undefined };
  await groups.join(join);
  const subscription: Subscription = {
    join,
    maxInFlight: 10,
    ackTimeoutMs: 30_000,
    maxDeliveries: 5,
    heartbeatMs: 15_000,
  };
  const held = createHeld();
  const log = createLog({ level: "silent" });
  const bell = createBell();
  const source = createSource({ groups, member: join, filter: undefined, subscription, held, clock, bell, log });
  return { open, source, held, clock, groups };
}

async function taken(source: Source): Promise<Claimed> {
  let claimed: Claimed | undefined;
  await until(
    () => {
      source.pull();
      claimed = source.take();
      return claimed !== undefined;
    },
    { what: "a claim" },
  );
  if (claimed === undefined) throw new Error("a claim was taken");
  return claimed;
}

describe.each(KINDS)("the source of a stream's deliveries over %s", (kind) => {
  it("counts what the consumer holds until it is settled or overdue", async () => {
    const { open, source, held, clock } = await setup(kind);
    await open.append(12);
    const first = await taken(source);
    expect(sequencesOf(first)).toHaveLength(10);
    expect(held.count(clock.now())).toBe(10);
    held.settle(refsOf(first).slice(0, 4));
    expect(sequencesOf(await taken(source))).toEqual([11, 12]);
    expect(held.count(clock.now())).toBe(8);
    clock.move(20_000);
    held.extend(refsOf(first).slice(4, 5), clock.now() + 30_000);
    clock.move(10_000);
    expect(held.count(clock.now())).toBe(1);
    expect(sequencesOf(await taken(source))).toHaveLength(9);
  });

  it("does not hand out deliveries that became overdue before they were taken, and claims them anew", async () => {
    const { open, source, clock } = await setup(kind);
    await open.append(1);
    source.pull();
    await until(
      async () => {
        source.pull();
        return (await open.first.groups.condition("g"))?.pending === 1;
      },
      { what: "a claim that nobody takes" },
    );
    await source.close();
    clock.move(30_000);
    expect(source.take()).toBeUndefined();
    expect((await taken(source)).deliveries).toMatchObject([{ attempt: 2 }]);
  });

  it("tells at its end which claim nobody took, so that it is not counted", async () => {
    const { open, source, groups } = await setup(kind);
    await open.append(2);
    await until(
      async () => {
        source.pull();
        return (await groups.condition("g"))?.pending === 2;
      },
      { what: "a claim that nobody takes" },
    );
    await groups.leave(member("g", "a"), undefined, await source.close());
    await groups.join({ ...member("g", "b"), start: "new", filter: undefined });
    const { deliveries } = await groups.claim(member("g", "b"), claimOrder());
    expect(deliveries.map(({ attempt }) => attempt)).toEqual([1, 1]);
  });

  it("delivers again at once what a claim took whose answer was lost", async () => {
    let lost = 0;
    const { open, source, clock } = await setup(kind, (groups) => ({
      ...groups,
      async claim(of, order) {
        const claimed = await groups.claim(of, order);
        if (claimed.deliveries.length === 0 || lost > 0) return claimed;
        lost = claimed.deliveries.length;
        throw new UnavailableError("SQL_UNAVAILABLE", "the connection was lost after the commit");
      },
    }));
    await open.append(3);
    const before = clock.now();
    expect(sequencesOf(await taken(source))).toEqual([1, 2, 3]);
    expect({ lost, waited: clock.now() - before, failure: source.failure }).toEqual({
      lost: 3,
      waited: 0,
      failure: undefined,
    });
  });
});
