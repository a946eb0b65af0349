import { expect, it } from "vitest";
import type { Backplane } from "../../src/infra/backplane.ts";
import { createLog } from "../../src/infra/log.ts";
import { type Lease, LOCK_TOPIC } from "../../src/lock/authority/authority.ts";
import { createNotice } from "../../src/lock/notice.ts";
import { type Grant, RETRIED } from "../../src/lock/record/grant.ts";

/** A backplane of the test's own, and all that comes of what it tells. */
function openNotice() {
  const done: string[] = [];
  let hear = (_: string) => {};
  let gap = (_: boolean) => {};
  const backplane: Backplane = {
    kind: "of the test",
    live: true,
    publish: async (topic, message) => void done.push(`publish ${topic} ${message}`),
    subscribe(_topic, onMessage) {
      hear = onMessage;
      return () => {};
    },
    onGap(listener) {
      gap = listener;
      return () => {};
    },
    close: async () => {},
  };
  const notice = createNotice({
    backplane,
    lines: { ring: (name) => done.push(`ring ${name}`), ringAll: () => done.push("ring all") },
    keepers: { check: (name) => done.push(`check ${name}`), checkAll: () => done.push("check all") },
    log: createLog({ level: "silent" }),
  });
  return { notice, done, hear: (name: string) => hear(name), gap: (live: boolean) => gap(live) };
}

function leaseKeptBy(streamId: string): Lease {
  const grant: Grant = {
    ...{ name: "a", token: 1, owner: "", purpose: "", caller: "", instanceId: "one", streamId },
    ...{ requestId: "", requestMeaning: "", ttlMs: 1, acquireMs: 0, expireMs: 1, renewals: 0, end: "", endMs: 0 },
  };
  return { grant, remainingMs: 1 };
}

it("what another instance tells wakes who waits for the lock, and has whoever keeps it look", () => {
  const { done, hear } = openNotice();
  hear("a");
  expect(done).toEqual(["ring a", "check a"]);
});

it("messages that may have been lost wake everybody, once others are heard again", () => {
  const { done, gap } = openNotice();
  gap(false);
  expect(done).toEqual([]);
  gap(true);
  expect(done).toEqual(["ring all", "check all"]);
});

it("other instances are told of a lock that was freed when a stream of theirs may keep it", () => {
  const { notice, done } = openNotice();
  notice.freed("a", { lease: leaseKeptBy("") });
  notice.freed("a", { lease: leaseKeptBy(RETRIED) });
  notice.freed("a", { lease: undefined, unkept: true });
  expect(done.filter((one) => one.startsWith("publish"))).toEqual([]);
  notice.freed("a", { lease: leaseKeptBy("stream") });
  notice.freed("b", { lease: undefined });
  expect(done.filter((one) => one.startsWith("publish"))).toEqual([
    `publish ${LOCK_TOPIC} a`,
    `publish ${LOCK_TOPIC} b`,
  ]);
});

it("a grant that another stream goes on with is told to whoever kept it, wherever that is", () => {
  const { notice, done } = openNotice();
  notice.inherited("a");
  expect(done).toEqual(["check a", `publish ${LOCK_TOPIC} a`]);
});
