import { describe, expect, it } from "vitest";
import {
  ConversationPresence,
  ConversationStateService,
  ConversationChange_Kind as Kind,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { CallFailed, type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

const { method } = ConversationStateService;

const topologies: readonly [name: string, env: () => Promise<Record<string, string>>][] = [
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
  ["sql-only", async () => ({ DATABASE_URL: await freshDatabase() })],
];

/** Two instances that share all there is to share, and a client of each. */
async function startTwo(env: Record<string, string>) {
  await using parts = new AsyncDisposableStack();
  const servers = await Promise.all(
    ["one", "two"].map(async (name) => parts.use(await startHoldfast({ ...env, HOLDFAST_INSTANCE_ID: name }))),
  );
  const [one, two] = servers.map(({ grpcAddress }) => parts.use(createConversationClient(grpcAddress)));
  if (one === undefined || two === undefined) throw new Error("there are not two");
  const kept = parts.move();
  return { one, two, servers, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

const stateOf = async (client: ConversationClient, id: string) => (await client.get(id)).reply.conversation?.state;

describe.each(topologies)("two instances, %s", (_, envOf) => {
  it("see at once what the other has written", async () => {
    await using open = await startTwo(await envOf());
    const { one, two } = open;
    for (let n = 1; n <= 40; n++) {
      const [writer, reader] = n % 2 ? [one, two] : [two, one];
      const { version } = await writer.save("shared", { n });
      expect((await reader.get("shared")).reply.conversation).toMatchObject({ summary: { version }, state: { n } });
    }
    await one.call(method.delete, { id: "shared" });
    expect((await two.get("shared")).reply.presence).toBe(ConversationPresence.DELETED);
  });

  it("lose none of each other's messages and updates, and agree on one order", async () => {
    await using open = await startTwo(await envOf());
    const { one, two } = open;
    await one.save("contested", { n: 0 });
    let conflicts = 0;
    const increments = [one, two, one, two].map(async (client) => {
      for (let done = 0; done < 10; ) {
        const { conversation } = (await client.get("contested")).reply;
        const expectedVersion = conversation?.summary?.version ?? 0n;
        try {
          await client.save("contested", { n: Number(conversation?.state?.n) + 1 }, { expectedVersion });
          done++;
        } catch (error) {
          if (!(error instanceof CallFailed) || error.code !== "ABORTED") throw error;
          // What is there instead is told, and is what the others wrote.
          expect(error.conflict?.currentVersion).toBeGreaterThan(expectedVersion);
          conflicts++;
        }
      }
    });
    const appended = [one, two, one, two].map(async (client, writer) => {
      const places: bigint[] = [];
      for (let at = 0; at < 25; at++) {
        const [place] = await client.append("log", [{ id: `${writer}-${at}`, role: "user", content: "m" }], {
          create: true,
        });
        places.push(place?.position ?? 0n);
      }
      return places;
    });
    const places = await Promise.all(appended);
    await Promise.all(increments);
    expect(conflicts).toBeGreaterThan(0);
    expect([await stateOf(one, "contested"), await stateOf(two, "contested")]).toEqual([{ n: 40 }, { n: 40 }]);
    const messages = await one.messages("log");
    expect(await two.messages("log")).toEqual(messages);
    expect(messages.map(({ position }) => position)).toEqual(messages.map((_item, at) => BigInt(at + 1)));
    for (const [writer, its] of places.entries()) {
      const ids = messages.filter(({ id }) => id.startsWith(`${writer}-`)).map(({ id, position }) => [id, position]);
      expect(ids).toEqual(its.map((position, at) => [`${writer}-${at}`, position]));
    }
  });

  it("tell their watchers what the other did, in order, also when the watcher moves from one to the other", async () => {
    await using open = await startTwo(await envOf());
    const { one, two } = open;
    const watch = await two.watch({ collection: "watched" });
    const collection = "watched";
    for (let n = 0; n < 10; n++) await (n % 2 ? one : two).save(`w${n % 3}`, { n }, { collection });
    await until(() => watch.changes.length === 10, { what: "ten changes" });
    watch.cancel();
    for (let n = 10; n < 20; n++) await (n % 2 ? one : two).save(`w${n % 3}`, { n }, { collection });
    const start = { case: "resumeToken", value: watch.resumeToken() } as const;
    const moved = await one.watch({ collection, start });
    await until(() => moved.changes.length === 10, { what: "ten more" });
    moved.cancel();
    const told = [...watch.changes, ...moved.changes];
    expect(told.map(({ summary }) => summary?.id)).toEqual(told.map((_item, n) => `w${n % 3}`));
    expect(told.map(({ kind }) => kind)).toEqual(told.map((_item, n) => (n < 3 ? Kind.CREATED : Kind.UPDATED)));
    for (const [n, { previousVersion }] of told.entries()) expect(previousVersion).toBe(told[n - 3]?.version ?? 0n);
  });

  it("go on when one is killed, and it finds everything when it is back", async () => {
    await using open = await startTwo(await envOf());
    const { one, two, servers } = open;
    await one.save("survivor", { n: 1 }, { messages: [{ role: "user", content: "m" }] });
    await servers[0]?.kill();
    await two.save("survivor", { n: 2 });
    await two.append("survivor", [{ role: "user", content: "n" }]);
    await servers[0]?.restart();
    await until(() => one.get("survivor"), { what: "the one that was killed" });
    expect(await stateOf(one, "survivor")).toEqual({ n: 2 });
    expect((await one.messages("survivor")).map(({ content }) => content)).toEqual(["m", "n"]);
  });
});
