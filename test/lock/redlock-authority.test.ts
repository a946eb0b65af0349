import { afterAll, beforeAll, expect, it } from "vitest";
import { takeOrder } from "./authorities.ts";
import { authoritySuite } from "./authority-suite.ts";
import { openRedlockAuthorities, startMasters, type TestMasters } from "./redlock-authorities.ts";

let masters: TestMasters;
beforeAll(async () => {
  masters = await startMasters(3);
});
afterAll(() => masters[Symbol.asyncDispose]());

const open = () => openRedlockAuthorities(masters, { count: 2, commandTimeoutMs: 2_000 });
authoritySuite("redlock over three masters", open, { sorted: false });

it("grants many locks at once, on masters that have seen none of them", async () => {
  await using opened = await openRedlockAuthorities(masters);
  const [{ authority }] = opened.instances;
  const takes = Array.from({ length: 200 }, (_, at) => authority.take(takeOrder(`lock-${at}`)));
  const kinds = (await Promise.all(takes)).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(["granted"]));
});
