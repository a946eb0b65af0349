import { expect, it, onTestFinished } from "vitest";
import { createHeardInstances, type HeardInstances } from "../../src/infra/heard-instances.ts";
import { movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";

const heartbeatMs = 20;

/** A backplane between those that are in one process. */
function connect() {
  const members: { id: number; onMessage: (message: string) => void }[] = [];
  let live = true;
  return {
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
}

it("instances hear of each other, of who leaves, and of who is missed; not of leaving when nothing can be heard", async () => {
  const network = connect();
  const clock = movedClock();
  const join = (id: string): HeardInstances => {
    const heard = createHeardInstances({ backplane: network.member(), id, clock, heartbeatMs });
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
  clock.move(1_000_000);
  // Several heartbeats that nobody hears.
  for (let n = 0; n < 3; n++) await new Promise((resolve) => setTimeout(resolve, heartbeatMs));
  expect([a.count, b.count]).toEqual([2, 2]);
  network.live = true;
  await until(() => a.count === 2 && b.count === 2, { what: "both to be there again" });
});

it("one that has died is forgotten after three heartbeats", async () => {
  const network = connect();
  const clock = movedClock();
  const survivor = createHeardInstances({ backplane: network.member(), id: "survivor", clock, heartbeatMs });
  onTestFinished(() => survivor.close());
  const dead = network.member();
  await dead.publish("instances", "here dead");
  expect(survivor.count).toBe(2);
  clock.move(3 * heartbeatMs);
  clock.move(1);
  await until(() => survivor.count === 1, { what: "it to be forgotten" });
});
