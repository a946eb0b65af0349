import { afterAll, beforeAll } from "vitest";
import { authoritySuite } from "./authority-suite.ts";
import { type Masters, openRedlockAuthorities, startMasters } from "./redlock-authorities.ts";

let masters: Masters;
beforeAll(async () => {
  masters = await startMasters(3);
});
afterAll(() => masters[Symbol.asyncDispose]());

authoritySuite("redlock over three masters", () => openRedlockAuthorities(masters, 2), { sorted: false });
