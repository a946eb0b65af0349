import { expect, it } from "vitest";
import { checkLives } from "./conversation-lives-checker.ts";
import type { Deed, LivesHistory, Rest, Sight, Told } from "./conversation-lives-history.ts";
import type { LifeFault } from "./conversation-lives-replay.ts";

/* Promises: the checker of conversations that come and go accepts what may be, and catches what must not be. */

const deed = (name: string, at: number, version: number, more: Partial<Deed>): Deed => ({
  ...{ name, conversation: "a", act: "write", expected: undefined, mark: "", messages: [], earlier: undefined },
  ...{ calledAt: at, answer: { at: at + 5, version }, unsure: false, ...more },
});
const born = deed("born", 0, 10, { expected: 0, mark: "m1" });
const appended = deed("append", 10, 20, { act: "append", expected: 10, messages: ["p", "q"] });
const rewritten = deed("rewrite", 20, 30, { expected: 20, mark: "m2" });
const restored = deed("restore", 30, 40, { act: "restore", expected: 30, earlier: { conversation: "a", version: 20 } });
const forked = deed("fork", 40, 45, {
  ...{ conversation: "fork", act: "fork", expected: 0, earlier: { conversation: "a", version: 10 } },
});
const removed = deed("remove", 50, 50, { act: "delete", expected: 40 });
const reborn = deed("reborn", 70, 60, { expected: 0, mark: "m3" });
const brief = deed("brief", 0, 5, { conversation: "x", expected: 0, mark: "m4" });
const unsure: Deed = { ...deed("unsure", 80, 0, { act: "delete", expected: 60 }), answer: undefined, unsure: true };
const deeds = [born, appended, rewritten, restored, forked, removed, reborn, brief, unsure];

const told = (turn: Told["turn"], previousVersion: number, version: number, more: Partial<Told> = {}): Told => ({
  ...{ conversation: "a", turn, previousVersion, version, messages: [], ...more },
});
const changes = [
  told("created", 0, 5, { conversation: "x" }),
  told("created", 0, 10),
  told("appended", 10, 20, { messages: ["p", "q"] }),
  told("updated", 20, 30),
  told("restored", 30, 40),
  told("created", 0, 45, { conversation: "fork" }),
  told("expired", 5, 48, { conversation: "x" }),
  told("deleted", 40, 50),
  told("created", 0, 60),
];

const sight = (at: number, version: number, mark: string, messageCount: number, more: Partial<Sight> = {}): Sight => ({
  ...{ by: `reader at ${at}`, conversation: "a", calledAt: at, answeredAt: at + 2, presence: "live", version, mark },
  ...{ messageCount, fromTruth: true, ...more },
});
const gone = (at: number, presence: Sight["presence"], more: Partial<Sight> = {}) =>
  sight(at, 0, "undefined", 0, { presence, ...more });
const sights = [
  gone(-5, "never"),
  sight(16, 20, "m1", 2),
  sight(36, 40, "m1", 2),
  sight(46, 45, "m1", 0, { conversation: "fork" }),
  gone(60, "deleted"),
  gone(60, "expired", { conversation: "x" }),
  sight(76, 60, "m3", 0),
];
const rest = (conversation: string, version: number, mark: string, ...messages: string[]): Rest => ({
  ...{ conversation, presence: "live", version, mark, messages },
});
const ended: Rest = { ...rest("x", 0, "undefined"), presence: "expired" };
const rests = [rest("a", 60, "m3"), rest("fork", 45, "m1"), ended];
const sound: LivesHistory = {
  ...{ deeds, sights, rests, healthy: [{ from: -10, to: 100 }], brief: new Set(["x"]) },
  told: [
    { by: "one", changes },
    { by: "two", changes: changes.with(2, told("appended", 10, 20)) },
  ],
};

it("accepts lives that one order of changes explains, and messages left out that were taken away since", () => {
  expect(checkLives(sound)).toEqual({ faults: {}, examples: [], strictSights: sights.length });
});

it("accepts a delete of which nobody heard whether it was carried out", () => {
  const all = [...changes, told("deleted", 60, 70)];
  const end: Rest = { ...rest("a", 0, "undefined"), presence: "deleted" };
  const history = { ...sound, told: [{ by: "one", changes: all }], rests: [end, ...rests.slice(1)] };
  expect(checkLives(history).faults).toEqual({});
});

it("lets a hot copy be behind a deletion while the system is not healthy, and only then", () => {
  const behind = sight(60, 40, "m1", 2, { fromTruth: false });
  expect(checkLives({ ...sound, sights: [behind], healthy: [] }).faults).toEqual({});
  expect(checkLives({ ...sound, sights: [behind] }).faults).toEqual({ "went back": 1 });
});

const toldBy = (of: readonly Told[]): Partial<LivesHistory> => ({ told: [{ by: "one", changes: of }] });
const without = (name: string) => deeds.filter((one) => one.name !== name);
const instead = (name: string, more: Partial<Deed>) => ({
  deeds: deeds.map((one) => (one.name === name ? { ...one, ...more } : one)),
});
const seen = (...of: readonly Sight[]): Partial<LivesHistory> => ({ sights: of });

const wrong: readonly [what: string, history: Partial<LivesHistory>, fault: LifeFault][] = [
  ["a late writer who brought back what was deleted", instead("reborn", { expected: undefined }), "deletion undone"],
  ["a late writer who was let in with the version from before", instead("reborn", { expected: 40 }), "update lost"],
  ["an update that replaced what it had not expected", instead("rewrite", { expected: 10 }), "update lost"],
  ["a delete of a version that was replaced", instead("remove", { expected: 30 }), "update lost"],
  ["a deletion that is not there", toldBy(changes.filter(({ turn }) => turn !== "deleted")), "change lost"],
  [
    "a fork of which nobody was told",
    toldBy(changes.filter(({ conversation }) => conversation !== "fork")),
    "change lost",
  ],
  ["a change that nobody ordered", { deeds: without("rewrite") }, "change foreign"],
  ["a change of another kind than was ordered", instead("rewrite", { act: "delete" }), "change foreign"],
  ["a change that was refused and made all the same", instead("restore", { answer: undefined }), "change foreign"],
  ["a life that ended by itself", { brief: new Set() }, "life cut short"],
  ["a change that was told twice", toldBy([...changes, ...changes.slice(-1)]), "watch wrong"],
  [
    "a change that one watch was not told",
    { told: [sound.told[0], { by: "two", changes: changes.slice(0, 7) }].filter(isThere) },
    "watch wrong",
  ],
  [
    "changes of one conversation out of order",
    toldBy([
      ...changes.slice(0, 2),
      told("updated", 20, 30),
      told("appended", 10, 20, { messages: ["p", "q"] }),
      ...changes.slice(4),
    ]),
    "watch wrong",
  ],
  ["a change of what was deleted", toldBy([...changes.slice(0, 8), told("updated", 50, 60)]), "watch wrong"],
  [
    "messages that another change appended",
    toldBy(changes.with(2, told("appended", 10, 20, { messages: ["r"] }))),
    "watch wrong",
  ],
  [
    "messages that were left out though they are there",
    toldBy([...changes.slice(0, 2), told("appended", 10, 20)]),
    "watch wrong",
  ],
  ["a read of what was deleted before", seen(sight(60, 40, "m1", 2)), "went back"],
  ["a read that finds nothing where something was made before", seen(gone(80, "deleted")), "went back"],
  ["a read that says deleted before anybody deleted", seen(gone(40, "deleted")), "read torn"],
  ["a read that says expired of what was deleted", seen(gone(60, "expired")), "read torn"],
  ["a restore that brought another state", seen(sight(36, 40, "m2", 2)), "read torn"],
  ["a restore that lost messages", seen(sight(36, 40, "m1", 0)), "read torn"],
  [
    "a fork that is not its source at that version",
    seen(sight(46, 45, "m2", 0, { conversation: "fork" })),
    "read torn",
  ],
  [
    "a fork with messages from after its version",
    { rests: [rest("a", 60, "m3"), rest("fork", 45, "m1", "p", "q"), ended] },
    "read torn",
  ],
  [
    "a new life with the messages of the old one",
    { rests: [rest("a", 60, "m3", "p", "q"), ...rests.slice(1)] },
    "end wrong",
  ],
  ["what expired and is there in the end", { rests: [...rests.slice(0, 2), rest("x", 5, "m4")] }, "end wrong"],
];

function isThere<T>(one: T | undefined): one is T {
  return one !== undefined;
}

it.each(wrong)("catches %s", (_what, history, fault) => {
  const { faults, examples } = checkLives({ ...sound, ...history });
  expect(faults[fault], examples.join("\n")).toBeGreaterThan(0);
});
