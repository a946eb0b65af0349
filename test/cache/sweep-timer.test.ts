import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { until } from "../support/until.ts";
import { startEmbedded } from "./embedded.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
});
afterEach(() => {
  vi.useRealTimers();
});

it("what has ended for good is removed by itself, within a minute", async () => {
  const { database, clock, put } = await startEmbedded({ policy: { staleForMs: 1_000 } });
  await put("ended", "v", 10_000);
  await put("endless", "v");
  const keys = async () => (await database.query<{ key: string }>("SELECT key FROM cache_entry")).map(({ key }) => key);
  clock.move(12_000);
  expect(await keys()).toHaveLength(2);
  vi.advanceTimersByTime(60_000);
  await until(async () => (await keys()).length === 1, { what: "the entry to be removed" });
  expect(await keys()).toEqual(["endless"]);
});
