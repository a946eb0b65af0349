import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { createRoom, type Room } from "../../src/conversation/hot/room.ts";
import { until } from "../support/until.ts";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** Work that is under way until it is told to end. */
function work(name: string, begun: string[]) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const begin = () => {
    begun.push(name);
    return promise;
  };
  return { begin, end: () => resolve(name), fail: () => reject(new Error(name)) };
}

it("lets work begin in its order, as far as there is room for its bytes", async () => {
  const room = createRoom(10);
  const begun: string[] = [];
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => work(name, begun));
  if (a === undefined || b === undefined || c === undefined || d === undefined) throw new Error("no work");
  const first = room.run(6, a.begin);
  const second = room.run(5, b.begin);
  // There would be room for it, but it is not its turn.
  const third = room.run(1, c.begin);
  const fourth = room.run(5, d.begin);
  expect([begun, room.waiting]).toEqual([["a"], 11]);
  a.end();
  expect(await first).toBe("a");
  expect([begun, room.waiting]).toEqual([["a", "b", "c"], 5]);
  b.fail();
  await expect(second).rejects.toThrow("b");
  expect([begun, room.waiting]).toEqual([["a", "b", "c", "d"], 0]);
  c.end();
  d.end();
  expect(await Promise.all([third, fourth])).toEqual(["c", "d"]);
});

it("lets what is larger than all of it have it to itself", async () => {
  const room = createRoom(10);
  const begun: string[] = [];
  const [small, large, next] = ["small", "large", "next"].map((name) => work(name, begun));
  if (small === undefined || large === undefined || next === undefined) throw new Error("no work");
  const all = [room.run(1, small.begin), room.run(100, large.begin), room.run(1, next.begin)];
  expect(begun).toEqual(["small"]);
  small.end();
  await all[0];
  expect(begun).toEqual(["small", "large"]);
  large.end();
  await all[1];
  expect(begun).toEqual(["small", "large", "next"]);
  next.end();
  await all[2];
});

it("lets go of what has begun, while others wait", async () => {
  const room = createRoom(10);
  const begun: string[] = [];
  const [first, third] = [work("first", begun), work("third", begun)];
  const all = [room.run(10, first.begin)];
  const [large, second] = runLarge(room);
  all.push(second, room.run(10, third.begin), room.run(10, third.begin));
  first.end();
  await second;
  expect(begun).toEqual(["first", "third"]);
  const isGone = () => {
    collectGarbage();
    return large.deref() === undefined;
  };
  await until(isGone, { what: "what has begun to be let go of" });
  third.end();
  expect(await Promise.all(all)).toEqual(["first", "large", "third", "third"]);
});

/** In a function of its own, whose frame holds nothing afterwards. */
function runLarge(room: Room): readonly [WeakRef<Buffer>, Promise<string>] {
  const large = Buffer.alloc(1024 * 1024, "x");
  return [new WeakRef(large), room.run(10, () => Promise.resolve(large.length > 0 ? "large" : ""))];
}
