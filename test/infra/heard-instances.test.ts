import { expect, it, onTestFinished } from "vitest";
import { createHeardInstances, type HeardInstances } from "../../src/infra/heard-instances.ts";
import { until } from "../support/until.ts";

const heartbeatMs = 20;

/** A backplane between those that are in one process. */
function connect() {
  const members: { id: number; onMessage: (message: string) => void }[] = [];
  let live = true;
  const network = {
    /** How often anything was said, and what is done then. */
    tried: 0,
    onTry: () => {},
    set live(now: boolean) {
      live = now;
    },
    member() {
      const id = members.length;
      return {
        get live() {
          return live;
        },
        async publish(_: string, message: string) {
          network.tried++;
          network.onTry();
          if (!live) throw new Error("it is away");
          for (const other of members) if (other.id !== id) other.onMessage(message);
        },
        subscribe(_: string, onMessage: (message: string) => void) {
          const member = { id, onMessage };
          members.push(member);
          return () => members.splice(members.indexOf(member), 1);
        },
      };
    },
  };
  return network;
}

it("instances hear of each other, of who leaves, and of who is missed; not of leaving when nothing can be heard", async () => {
  const network = connect();
  const join = (id: string): HeardInstances => {
    const heard = createHeardInstances({ backplane: network.member(), id, heartbeatMs });
    onTestFinished(() => heard.close());
    return heard;
  };
  const a = join("a");
  expect(a.count).toBe(1);
  const [b, c] = [join("b"), join("c")];
  await until(() => [a, b, c].every(({ count }) => count === 3), { what: "all to hear all" });
  await c.close();
  await until(() => a.count === 2 && b.count === 2, { what: "the one that left to be gone" });
  network.live = false;
  const before = network.tried;
  await until(() => network.tried > before + 20, { what: "many heartbeats that nobody hears" });
  expect([a.count, b.count]).toEqual([2, 2]);
  network.live = true;
  await until(() => a.count === 2 && b.count === 2, { what: "both to be there again" });
});

it("one that has died is forgotten after three heartbeats in which it could have been heard", async () => {
  const network = connect();
  const survivor = createHeardInstances({ backplane: network.member(), id: "survivor", heartbeatMs });
  onTestFinished(() => survivor.close());
  await network.member().publish("instances", "here dead");
  expect(survivor.count).toBe(2);
  network.live = false;
  const before = network.tried;
  await until(() => network.tried > before + 10, { what: "heartbeats that nobody hears" });
  const counts: number[] = [];
  network.onTry = () => counts.push(survivor.count);
  network.live = true;
  await until(() => survivor.count === 1, { what: "it to be forgotten" });
  expect(counts).toEqual([2, 2, 2, 2]);
});
