import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Backplane } from "../../src/infra/backplane.ts";
import { until } from "../support/until.ts";

/** One way to lose the server and to get it back. */
export interface Fault {
  begin(): void | Promise<void>;
  end(): void | Promise<void>;
}

export interface BackplaneWorld {
  /** A new instance among the others of this world. */
  join(): Backplane;
  /** Faults by name. Empty for a backplane that nothing can come between. */
  readonly faults: Readonly<Record<string, Fault>>;
  close(): Promise<void>;
}

/** What every backplane does. `faults` names those that `open` will offer. */
export function describeBackplane(name: string, open: () => Promise<BackplaneWorld>, faults: readonly string[]): void {
  describe(name, () => {
    let world: BackplaneWorld;

    beforeAll(async () => {
      world = await open();
    });
    afterAll(() => world.close());

    function join(): Backplane {
      const backplane = world.join();
      onTestFinished(() => backplane.close());
      return backplane;
    }

    /** Joins, listens, and waits until messages arrive. */
    async function listening(topic: string): Promise<{ backplane: Backplane; heard: string[] }> {
      const backplane = join();
      const heard: string[] = [];
      backplane.subscribe(topic, (message) => heard.push(message));
      await until(() => backplane.live, { what: "the backplane to be live" });
      return { backplane, heard };
    }

    it("delivers to all others and not to oneself", async () => {
      const a = await listening("t");
      const b = await listening("t");
      const c = await listening("t");
      await a.backplane.publish("t", "from a");
      await b.backplane.publish("t", "from b");
      await until(() => c.heard.length === 2, { what: "both messages at c" });
      await until(() => a.heard.length + b.heard.length >= 2, { what: "one message each at a and b" });
      expect(c.heard.toSorted()).toEqual(["from a", "from b"]);
      expect([a.heard, b.heard]).toEqual([["from b"], ["from a"]]);
    });

    it("keeps topics apart", async () => {
      const sender = await listening("one");
      const receiver = await listening("one");
      const others: string[] = [];
      receiver.backplane.subscribe("other", (message) => others.push(message));
      // A topic that is added later is heard after a moment.
      await until(
        async () => {
          await sender.backplane.publish("other", "o");
          return others.length > 0;
        },
        { what: "a message on the other topic" },
      );
      await sender.backplane.publish("one", "1");
      await until(() => receiver.heard.length > 0, { what: "a message on the first topic" });
      expect(receiver.heard).toEqual(["1"]);
      expect(new Set(others)).toEqual(new Set(["o"]));
    });

    it("stops delivering to a listener that unsubscribed, and to no other", async () => {
      const sender = await listening("t");
      const receiver = await listening("t");
      const brief: string[] = [];
      const unsubscribe = receiver.backplane.subscribe("t", (message) => brief.push(message));
      await sender.backplane.publish("t", "1");
      await until(() => brief.length === 1, { what: "the first message" });
      unsubscribe();
      unsubscribe();
      await sender.backplane.publish("t", "2");
      await until(() => receiver.heard.length === 2, { what: "the second message" });
      expect(brief).toEqual(["1"]);
    });

    it("delivers any text unchanged", async () => {
      const sender = await listening("t");
      const receiver = await listening("t");
      const texts = [
        "",
        " ",
        "a b  c ",
        "\u0000\u0001\u00010\u00011\n\r\n\t",
        "naïve 日本語 👩‍👩‍👧 \u{10ffff}",
        "'\"\\;--$1%s",
      ];
      for (const text of texts) await sender.backplane.publish("t", text);
      await until(() => receiver.heard.length === texts.length, { what: "all texts" });
      expect(receiver.heard).toEqual(texts);
    });

    it("keeps the order of one sender over 10,000 messages", async () => {
      const sender = await listening("t");
      const receiver = await listening("t");
      const messages = Array.from({ length: 10_000 }, (_, index) => `message ${index}`);
      await Promise.all(messages.map((message) => sender.backplane.publish("t", message)));
      await until(() => receiver.heard.length >= messages.length, { what: "10,000 messages" });
      expect(receiver.heard).toEqual(messages);
    });

    it("delivers to the other listeners when one throws", async () => {
      const sender = await listening("t");
      const receiver = join();
      const heard: string[] = [];
      receiver.subscribe("t", () => {
        throw new Error("a listener failed");
      });
      receiver.subscribe("t", (message) => heard.push(message));
      await until(() => receiver.live, { what: "the backplane to be live" });
      await sender.backplane.publish("t", "1");
      await until(() => heard.length === 1, { what: "the message" });
    });

    it("delivers nothing after it was closed", async () => {
      const sender = await listening("t");
      const closed = await listening("t");
      const witness = await listening("t");
      await closed.backplane.close();
      expect(closed.backplane.live).toBe(false);
      await sender.backplane.publish("t", "1");
      await until(() => witness.heard.length === 1, { what: "the message" });
      expect(closed.heard).toEqual([]);
    });

    it.each(faults)("tells where a gap begins and ends when the server is %s, and delivers again", async (fault) => {
      const sender = await listening("t");
      const receiver = await listening("t");
      const gaps: boolean[] = [];
      const said: boolean[] = [];
      receiver.backplane.onGap(() => {
        throw new Error("a listener failed");
      });
      receiver.backplane.onGap((live) => {
        // What throws here is caught by the backplane, so the comparison is made below.
        gaps.push(live);
        said.push(receiver.backplane.live);
      });
      const { begin, end } = world.faults[fault] ?? {};
      await begin?.();
      await until(() => !receiver.backplane.live && gaps.length > 0, { what: "the gap to begin" });
      await end?.();
      await until(() => receiver.backplane.live && sender.backplane.live, { what: "the gap to end" });
      expect(said).toEqual(gaps);
      expect(gaps[0]).toBe(false);
      expect(gaps.at(-1)).toBe(true);
      // Never two beginnings without an end between them.
      expect(gaps.every((live, index) => live === (index % 2 === 1))).toBe(true);
      await until(
        async () => {
          await sender.backplane.publish("t", "after");
          return receiver.heard.includes("after");
        },
        { what: "a message after the gap" },
      );
    });
  });
}
