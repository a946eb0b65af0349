import { expect, it } from "vitest";
import { checkHistory, type Fault } from "./conversation-checker.ts";
import type { Commit, History, Read, Write } from "./conversation-history.ts";

/* Promises: the checker that the chaos run relies on accepts what may be, and catches what must not be. */

const founded: Write = {
  ...{ name: "founder", conversation: "a", messages: [], expected: 0, mark: "m0", calledAt: 0 },
  answer: { at: 5, version: 10, positions: [], duplicate: false },
};
const appended: Write = {
  ...{ name: "append", conversation: "a", messages: ["x", "y"], expected: 0, mark: "", calledAt: 10 },
  answer: { at: 15, version: 20, positions: [1, 2], duplicate: false },
};
const updated: Write = {
  ...{ name: "update", conversation: "a", messages: [], expected: 20, mark: "m1", calledAt: 20 },
  answer: { at: 25, version: 30, positions: [], duplicate: false },
};
const unanswered: Write = { ...updated, name: "unanswered", expected: 30, mark: "m2", calledAt: 30, answer: undefined };
const again: Write = {
  ...{ ...appended, name: "append again", messages: ["z"], calledAt: 40 },
  answer: { at: 55, version: 50, positions: [3], duplicate: true },
};

const commit = (previousVersion: number, version: number, ...messages: string[]): Commit => ({
  ...{ conversation: "a", previousVersion, version, messages },
});
const changes = [commit(0, 10), commit(10, 20, "x", "y"), commit(20, 30), commit(30, 40), commit(40, 50, "z")];
const read: Read = {
  ...{ by: "reader", conversation: "a", calledAt: 26, answeredAt: 29 },
  ...{ version: 30, mark: "m1", writes: 2, messageCount: 2, fromTruth: false },
};
const late: Read = { ...read, calledAt: 60, answeredAt: 65, version: 50, mark: "m2", writes: 3, messageCount: 3 };
const behind: Read = { ...read, by: "late reader", calledAt: 61, answeredAt: 65 };
const listed = ["x", "y", "z"].map((id, at) => ({ id, position: at + 1 }));
const sound: History = {
  writes: [founded, appended, updated, unanswered, again],
  reads: [read, late],
  commits: [{ by: "history", changes }],
  told: [{ by: "watch", changes }],
  listings: [{ by: "one", conversation: "a", messages: listed }],
  healthy: [{ from: 0, to: 100 }],
};

it("accepts writes, reads and watches that one order of versions explains", () => {
  expect(checkHistory(sound)).toEqual({ faults: {}, examples: [], strictReads: 2, unansweredCommits: 1 });
});

it("lets a hot copy be behind while the system is not healthy, and only then", () => {
  const history = { ...sound, reads: [read, behind] };
  expect(checkHistory({ ...history, healthy: [{ from: 0, to: 64 }] }).faults).toEqual({});
  expect(checkHistory(history).faults).toEqual({ "version went back": 1 });
});

const listing = (messages: History["listings"][number]["messages"]): Partial<History> => ({
  listings: [{ by: "one", conversation: "a", messages }],
});
const watched = (told: readonly Commit[]): Partial<History> => ({ told: [{ by: "watch", changes: told }] });
const [x, y, z] = ["x", "y", "z"].map((id, at) => ({ id, position: at + 1 }));
if (!x || !y || !z) throw new Error("there are three messages");
const rival: Write = {
  ...{ ...updated, name: "rival", mark: "m3", calledAt: 21 },
  answer: { at: 35, version: 40, positions: [], duplicate: false },
};

const wrong: readonly [what: string, history: Partial<History>, fault: Fault][] = [
  ["a message that is gone", listing([x, y]), "message lost"],
  ["a message that is there twice", listing([x, y, z, { id: "x", position: 4 }]), "message doubled"],
  [
    "a message at another place",
    listing([y, x, z].map(({ id }, at) => ({ id, position: at + 1 }))),
    "message misplaced",
  ],
  ["a gap between places", listing([x, y, { id: "z", position: 4 }]), "message misplaced"],
  ["a message that nobody sent", listing([x, y, z, { id: "q", position: 4 }]), "message foreign"],
  ["two updates of one version", { writes: [founded, appended, updated, rival, again] }, "update lost"],
  [
    "an update that replaced what it had not expected",
    { writes: [founded, appended, { ...updated, expected: 10 }, unanswered, again] },
    "update lost",
  ],
  [
    "a write of an older version than one before it",
    { writes: [founded, { ...appended, calledAt: 26 }, updated, unanswered, again] },
    "version went back",
  ],
  [
    "a message before one that was acknowledged before it was sent",
    { writes: [founded, { ...appended, calledAt: 60 }, updated, unanswered, again] },
    "order not kept",
  ],
  [
    "a read from the truth that is behind",
    { reads: [late, { ...behind, calledAt: 66, answeredAt: 67, fromTruth: true }], healthy: [] },
    "version went back",
  ],
  ["a read of a version that never was", { reads: [{ ...late, version: 45 }], healthy: [] }, "read torn"],
  ["a state under the version of another", { reads: [{ ...late, mark: "m1" }] }, "read torn"],
  ["messages that are not of the version", { reads: [{ ...late, messageCount: 2 }] }, "read torn"],
  [
    "an acknowledged write that was not committed",
    { commits: [{ by: "history", changes: changes.slice(0, 4) }] },
    "write lost",
  ],
  [
    "a write that was committed twice",
    { commits: [{ by: "history", changes: [...changes, commit(50, 60, "z")] }] },
    "write foreign",
  ],
  ["a state that nobody wrote", { writes: [founded, appended, updated, again] }, "write foreign"],
  ["a change that was not told", watched(changes.toSpliced(2, 1)), "watch wrong"],
  ["a change that was told twice", watched(changes.toSpliced(2, 0, commit(10, 20, "x", "y"))), "watch wrong"],
  ["changes told out of order", watched([...changes.slice(0, 3), commit(40, 50, "z"), commit(30, 40)]), "watch wrong"],
];

it.each(wrong)("catches %s", (_what, history, fault) => {
  const { faults, examples } = checkHistory({ ...sound, ...history });
  expect(faults[fault], examples.join("\n")).toBeGreaterThan(0);
});
